//! An S3 on this machine that is not ours: `s3s-fs`, which keeps objects in a folder. It can go away and come back.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const KEY: &str = "key";
const SECRET: &str = "secret";
const BUCKET: &str = "bucket";

pub struct Server {
    folder: TempDir,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST)
    }

    /// At another address of this machine.
    pub fn start_at(address: Ipv4Addr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut server = Self { folder, address: SocketAddr::from((address, 0)), running: None };
        server.come_back();
        server
    }

    /// Where a node finds it.
    pub fn flags(&self) -> Vec<String> {
        let pairs = [
            ("bucket", BUCKET.to_owned()),
            ("endpoint", format!("http://{}", self.address)),
            ("access-key-id", KEY.to_owned()),
            ("secret-access-key", SECRET.to_owned()),
        ];
        let flags = pairs.into_iter().flat_map(|(name, value)| [format!("--storage-s3-{name}"), value]);
        flags.chain(["--storage-s3-path-style".to_owned()]).collect()
    }

    /// Where its objects are.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Nobody listens any more, and whoever is connected is cut off.
    pub fn go_away(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// At the same address as before, if it was there before.
    pub fn come_back(&mut self) {
        let service = service(self.folder.path());
        let (stop, stopped) = oneshot::channel();
        let (ready, listens) = std::sync::mpsc::channel();
        let address = self.address;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let accepting = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let service = service.clone();
                        let answer = service_fn(move |request: Request<Incoming>| {
                            let service = service.clone();
                            async move {
                                Ok::<_, Infallible>(
                                    service.call(request.map(Body::from)).await.expect("s3s-fs answers"),
                                )
                            }
                        });
                        let connection = hyper::server::conn::http1::Builder::new();
                        tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        self.address = listens.recv().unwrap();
        self.running = Some((stop, thread));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn service(folder: &Path) -> S3Service {
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY, SECRET));
    service.build()
}
