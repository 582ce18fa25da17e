use std::env;

use axum::Router;
use axum::routing::{get, post};

#[tokio::main]
async fn main() {
    let app = Router::new()
        .route("/", get(|| async { "@VERSION@" }))
        .route("/echo", post(|body: String| async { body }));
    let address = format!("{}:{}", env::var("HOST").unwrap(), env::var("PORT").unwrap());
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    axum::serve(listener, app).await.unwrap();
}
