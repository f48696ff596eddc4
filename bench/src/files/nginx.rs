//! nginx on a folder, with as many workers as there are processors and without a log.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Runs until it is dropped.
pub struct Nginx {
    pub url: String,
    process: Child,
    _folder: TempDir,
}

pub fn is_installed() -> Result<(), String> {
    let said = Command::new("nginx").arg("-v").output();
    said.map(drop).map_err(|_| "nginx is not there: apt-get install nginx-light".to_owned())
}

impl Nginx {
    /// On a free port of this machine.
    pub fn start(root: &Path) -> Result<Self, String> {
        let text = |cause: std::io::Error| format!("nginx: {cause}");
        let folder = tempfile::tempdir().map_err(text)?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(text)?;
        let own = folder.path().display();
        // `keepalive_requests`: a connection stays for the whole measurement, as it does with us.
        let settings = format!(
            "daemon off;\nworker_processes auto;\npid {own}/pid;\nerror_log {own}/error.log;\nuser root;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n access_log off;\n sendfile on;\n tcp_nopush on;\n keepalive_requests 1000000000;\n\
             default_type application/octet-stream;\n client_body_temp_path {own}/body;\n proxy_temp_path {own}/proxy;\n\
             fastcgi_temp_path {own}/fastcgi;\n uwsgi_temp_path {own}/uwsgi;\n scgi_temp_path {own}/scgi;\n\
             server {{ listen {free}; root {}; }}\n}}\n",
            root.display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings).map_err(text)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(text)?;
        let nginx = Self { url: format!("http://{free}"), process, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(free).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("nginx does not answer".into());
            }
            std::thread::yield_now();
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to; killed, it would leave them.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
