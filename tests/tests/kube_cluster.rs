//! What is asked of an API server at once: a slow one is not buried.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anneal_core::object::{Key, Kind, Object};
use anneal_operator::{kube_cluster::KubeCluster, ports::Cluster as _};
use axum::{Json, Router, http::Uri};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};

/// How many objects are made at once.
const AT_ONCE: usize = 16;

/// An API server that answers for a route at once, and for everything else as often as it is let.
async fn api_server(
    lets: Arc<Semaphore>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
) -> KubeCluster {
    let answer = move |uri: Uri| {
        let (lets, under_way, most) = (lets.clone(), under_way.clone(), most.clone());
        async move {
            let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "n"}});
            if !uri.path().contains("httproutes") {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                lets.acquire().await.unwrap().forget();
                under_way.fetch_sub(1, Ordering::SeqCst);
            }
            Json(object)
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let config = kube::Config::new(url.parse().unwrap());
    KubeCluster::new(kube::Client::try_from(config).unwrap(), "test")
}

fn object(kind: Kind, number: usize) -> Object {
    Object::new(Key::new(kind, "team-a", &format!("ads-{number}")), json!({}))
}

#[tokio::test]
async fn makers_wait_for_each_other_and_a_route_waits_for_nobody() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (lets, under_way, most) = (Arc::new(Semaphore::new(0)), Arc::default(), Arc::default());
    let cluster = Arc::new(api_server(lets.clone(), Arc::clone(&under_way), Arc::clone(&most)).await);
    let make = |number| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.apply(&object(Kind::Service, number)).await })
    };
    let makers: Vec<_> = (0..100).map(make).collect();
    while under_way.load(Ordering::SeqCst) < AT_ONCE {
        tokio::task::yield_now().await;
    }
    for number in 0..20 {
        cluster.apply(&object(Kind::HttpRoute, number)).await.unwrap();
    }
    assert_eq!(under_way.load(Ordering::SeqCst), AT_ONCE);
    lets.add_permits(100);
    for maker in makers {
        maker.await.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
}
