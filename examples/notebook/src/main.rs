//! A notebook for the terminal: `notebook add TEXT` and `notebook list`. PostgreSQL, the data API and all else are inside; nothing listens.

use std::error::Error;
use std::path::Path;

use http::{Method, Request};
use ntier::library::Application;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    // The database is a child process of the same executable.
    ntier::library::engine();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = std::env::var("NOTEBOOK").unwrap_or_else(|_| ".notebook".into());
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let app = Box::pin(ntier::embedded().project(project).data(folder).start()).await?;
        let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["add", text] => add(&app, text).await,
            ["list"] => list(&app).await,
            _ => Err("notebook add TEXT, or notebook list".into()),
        };
        app.stop().await?;
        done
    })
}

async fn add(app: &Application, text: &str) -> Result<(), Box<dyn Error>> {
    ask(app, Method::POST, "/rest/v1/notes", &json!({ "body": text })).await.map(drop)
}

async fn list(app: &Application) -> Result<(), Box<dyn Error>> {
    let notes = ask(app, Method::GET, "/rest/v1/notes?select=body&order=id", &Value::Null).await?;
    for note in notes.as_array().into_iter().flatten() {
        println!("{}", note["body"].as_str().unwrap_or_default());
    }
    Ok(())
}

async fn ask(app: &Application, method: Method, path: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
    let request = Request::builder().method(method).uri(path).header("apikey", app.keys().secret_key.expose());
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let answer = app.send(request.header("content-type", "application/json").body(body)?).await?;
    let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    if answer.status().is_success() { Ok(said) } else { Err(said["message"].as_str().unwrap_or("refused").into()) }
}
