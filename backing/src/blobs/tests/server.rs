//! A real S3 for the tests, on loopback: `s3s-fs`, which keeps objects in a folder. What it cannot do or will not do by itself (to
//! list unfinished uploads, to fail) is said for it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ntier_security::Secret;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::blobs::S3Settings;

const KEY: &str = "key";
const SECRET: &str = "secret";

pub struct Server {
    port: u16,
    folder: tempfile::TempDir,
    says: Arc<Mutex<Vec<Says>>>,
    answered: mpsc::UnboundedReceiver<String>,
}

/// One answer, to the next request that contains this.
struct Says {
    to: &'static str,
    status: StatusCode,
    body: String,
}

pub async fn start() -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let says = Arc::new(Mutex::new(Vec::new()));
    let (answers, answered) = mpsc::unbounded_channel();
    let server = Server { port, folder, says: says.clone(), answered };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, service.clone(), says.clone(), answers.clone()));
        }
    });
    server
}

impl Server {
    pub fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "eu-1".to_owned(),
            bucket: "bucket".to_owned(),
            prefix: "files/of mine".to_owned(),
            access_key_id: KEY.to_owned(),
            secret_access_key: Secret::new(SECRET.to_owned()),
            path_style: true,
            allow_http: false,
        }
    }

    /// Answers the next request whose method, path and query contain this.
    pub fn say(&self, to: &'static str, status: u16, body: impl Into<String>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.says.lock().unwrap().push(Says { to, status, body: body.into() });
    }

    /// Waits for a request that contains this to be answered; gives its method, path and query.
    pub async fn answered(&mut self, part: &str) -> String {
        loop {
            let request = self.answered.recv().await.unwrap();
            if request.contains(part) {
                return request;
            }
        }
    }

    /// What has been answered and not waited for.
    pub fn requests(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.answered.try_recv().ok()).collect()
    }

    /// The names of unfinished uploads' files.
    pub fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload")).collect()
    }
}

async fn serve(
    stream: TcpStream,
    service: S3Service,
    says: Arc<Mutex<Vec<Says>>>,
    answers: mpsc::UnboundedSender<String>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let said = format!("{} {}", request.method(), request.uri());
        let canned = {
            let mut says = says.lock().unwrap();
            says.iter().position(|says| said.contains(says.to)).map(|place| says.remove(place))
        };
        let (service, answers) = (service.clone(), answers.clone());
        async move {
            let response = match canned {
                Some(says) => canned_response(says),
                None => service.call(request.map(Body::from)).await.expect("s3s-fs answers"),
            };
            let _ = answers.send(said);
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

fn canned_response(says: Says) -> HttpResponse {
    let mut response = Response::new(Body::from(says.body));
    *response.status_mut() = says.status;
    response
}
