//! Paths that nobody asks for but programs that look for other programs' faults and forgotten files.

/// Whether the path is one. `path` is plain (`firewall::plain`). Only those that were answered by a refusal are looked at, so a site may
/// have any of these. Names below our own APIs are the application's: a table may be called `backup.sql`, and a file `index.php`.
///
/// Not here: whatever ends in `.php` or `.asp`. A site that was made with these before still has its links everywhere, and search engines
/// follow them.
pub fn is_scanner_path(path: &str) -> bool {
    if is_api(path) {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let is_scanner = |step: &str| {
        STEPS.contains(&step)
            || BEGINNINGS.iter().any(|beginning| step.starts_with(beginning))
            || ENDINGS.iter().any(|ending| step.ends_with(ending))
    };
    lower.split('/').any(is_scanner) || WHOLE.iter().any(|whole| lower.contains(whole))
}

/// Whether the path is below one of our own APIs.
pub fn is_api(path: &str) -> bool {
    APIS.iter().any(|api| path.starts_with(api))
}

const APIS: &[&str] = &["/rest/v1/", "/auth/v1/", "/storage/v1/", "/realtime/v1/", "/functions/v1/"];
/// Hidden files that hold secrets, and consoles.
const STEPS: &[&str] = &[
    ".git",
    ".svn",
    ".hg",
    ".aws",
    ".ssh",
    ".docker",
    ".kube",
    ".htpasswd",
    ".htaccess",
    ".npmrc",
    ".pgpass",
    ".ds_store",
    ".vscode",
    ".idea",
    "xmlrpc.php",
    "phpinfo.php",
    "shell.php",
    "eval-stdin.php",
    "config.php",
    "setup.php",
    "install.php",
    "cgi-bin",
    "phpmyadmin",
    "adminer",
    "phpunit",
    "boaform",
    "hnap1",
    "actuator",
    "jmx-console",
    "_ignition",
    "server-status",
    "web-inf",
    "id_rsa",
    "credentials.json",
    "docker-compose.yml",
    "web.config",
    "dump.sql",
    "backup.sql",
    "backup.zip",
];
const BEGINNINGS: &[&str] = &[".env", ".git", "wp-", "phpmyadmin", "adminer-", "sftp-config"];
const ENDINGS: &[&str] = &[".bak", ".sql.gz"];
const WHOLE: &[&str] = &["/etc/passwd", "/proc/self/", "/win.ini", "/boot.ini", "/vendor/phpunit/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanners_are_known_by_what_they_ask_for() {
        for (path, expected) in [
            ("/.env", true),
            ("/app/.env.production", true),
            ("/.git/config", true),
            ("/wp-login.php", true),
            ("/blog/xmlrpc.php", true),
            ("/phpMyAdmin/index.php", true),
            ("/cgi-bin/luci", true),
            ("/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", true),
            ("/actuator/health", true),
            ("/", false),
            ("/favicon.ico", false),
            ("/apple-touch-icon.png", false),
            ("/robots.txt", false),
            ("/.well-known/security.txt", false),
            ("/.well-known/apple-app-site-association", false),
            ("/index.php", false),
            ("/vendor", false),
            ("/rest/v1/films", false),
            ("/rest/v1/backup.sql", false),
            ("/auth/v1/token", false),
            ("/storage/v1/object/public/photos/cat.jpg", false),
            ("/assets/index-8f3a.js", false),
        ] {
            assert_eq!(is_scanner_path(path), expected, "{path}");
        }
    }
}
