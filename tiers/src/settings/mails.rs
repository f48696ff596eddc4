//! E-mails in a project's own words: read and checked at start, so that none fails when it is to be sent.

use std::io;
use std::path::{Path, PathBuf};

use ntier_auth::{Mails, NOTIFICATIONS, TemplateFault};

use crate::fault::{Fault, Place};
use crate::project::config::{Mail, Said};
use crate::project::{Project, Source};

/// Takes what the project says; gives what is wrong with it.
pub fn read(mails: &mut Mails, project: &Project) -> Vec<Fault> {
    let Source::Folder(folder) = &project.source else { return Vec::new() };
    let root = project.root.as_deref().unwrap_or(folder);
    let mut faults = Vec::new();
    for (name, said) in &project.config.auth.mails {
        let is_notification = NOTIFICATIONS.contains(&name.as_str());
        // Source: the Supabase CLI, `resolve` in pkg/config/config.go.
        let folders = if is_notification { [folder, root] } else { [root, folder] };
        faults.extend(one(mails, name, said, folders));
    }
    faults
}

fn one(mails: &mut Mails, name: &str, said: &Mail, folders: [&Path; 2]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut told = |part: &str, place: &dyn Fn(usize) -> Place, outcome: Result<(), TemplateFault>| {
        if let Err(fault) = outcome {
            faults.push(Fault::error(place(fault.line), format!("the {part} of the e-mail {name}: {fault}")));
        }
    };
    if let Some(is_sent) = said.enabled {
        mails.set_sent(name, is_sent);
    }
    if let Some(subject) = &said.subject {
        told("subject", &|line| subject.place(line), mails.set_subject(name, &subject.text));
    }
    match (&said.content_path, &said.content) {
        (Some(path), _) if !path.text.is_empty() => match file(path, folders) {
            Ok((path, text)) => {
                let place = |line| Place::File { path: path.clone(), line };
                told("content", &place, mails.set_html(name, &text));
            }
            Err(message) => faults.push(Fault::error(path.place(1), message)),
        },
        (_, Some(content)) => told("content", &|line| content.place(line), mails.set_html(name, &content.text)),
        _ => {}
    }
    faults
}

/// The file in the first folder that has it.
fn file(said: &Said, folders: [&Path; 2]) -> Result<(PathBuf, String), String> {
    let [first, second] = folders.map(|folder| folder.join(said.text.strip_prefix("./").unwrap_or(&said.text)));
    let path = if first.exists() || !second.exists() { first } else { second };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(format!("there is no file {}", path.display())),
        Err(cause) => Err(format!("cannot read {}: {cause}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::config;

    /// The faults of this configuration, with templates in both folders.
    fn faults(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let supabase = folder.path().join("supabase");
        std::fs::create_dir_all(supabase.join("templates")).unwrap();
        std::fs::write(supabase.join("templates/good.html"), "<p>{{ .Token }}</p>").unwrap();
        std::fs::write(supabase.join("templates/bad.html"), "<p>\n\n{{ .Tokn }}</p>").unwrap();
        std::fs::write(folder.path().join("outside.html"), "{{ .Token }}").unwrap();
        let (config, faults) = config::parse(Path::new("config.toml"), text, &|_| None);
        assert_eq!(faults, []);
        let project = Project { root: Some(folder.path().into()), source: Source::Folder(supabase), config };
        let faults = read(&mut Mails::default(), &project);
        faults.iter().map(|fault| fault.to_string().replace(&folder.path().display().to_string(), "…")).collect()
    }

    #[test]
    fn faults_are_told_where_they_are() {
        let of = |name: &str, more: &str| faults(&format!("[auth.email.{name}]\n{more}\n"));
        for path in ["./supabase/templates/good.html", "./templates/good.html", "outside.html"] {
            for name in ["template.invite", "notification.password_changed"] {
                assert_eq!(of(name, &format!("content_path = \"{path}\"")), [""; 0], "{name} {path}");
            }
        }
        for (more, expected) in [
            ("content_path = \"./nowhere.html\"", "error: config.toml:2: there is no file …/nowhere.html"),
            ("content_path = \"./supabase\"", "error: config.toml:2: cannot read …/supabase: "),
            (
                "content_path = \"./supabase/templates/bad.html\"",
                "error: …/supabase/templates/bad.html:3: the content of the e-mail invite: there is no variable .Tokn",
            ),
            (
                "subject = \"{{ if }}\"",
                "error: config.toml:2: the subject of the e-mail invite: there is nothing between",
            ),
            (
                "content = '''\n<p>\n{{ end }}\n'''",
                "error: config.toml:4: the content of the e-mail invite: {{ end }} stands where nothing has begun",
            ),
        ] {
            let told = of("template.invite", more);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{more}: {told:?}");
        }
    }
}
