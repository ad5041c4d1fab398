//! Paths, types, caches, browsers, compression and damage.

use std::io::Read as _;

use countersign::{
    log::Logs,
    tlog::{Checkpoint, TilePath, leaf_hash, tile},
};
use flate2::read::GzDecoder;
use rocksdb::{DB, Options};

use super::client::{Answer, Connection, ORIGIN, Served, fill, new_log, new_log_of, open, serve, serve_all};
use crate::daemon::Daemon;

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

async fn served(size: u64) -> (tempfile::TempDir, Served) {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    fill(&log, size).await;
    let dir = home.path().join("log");
    (home, serve(log, dir, 2).await)
}

/// Runs blocking `work` with a connection to the server.
async fn with<T: Send + 'static>(served: &Served, work: impl FnOnce(&mut Connection) -> T + Send + 'static) -> T {
    let address = served.address;
    tokio::task::spawn_blocking(move || work(&mut Connection::to(address))).await.unwrap()
}

fn assert_public(answer: &Answer, what: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), "*", "{what}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
}

fn unbundle(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        entries.push(entry.to_vec());
        bundle = rest;
    }
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoint_tiles_and_bundles_are_what_the_specification_says() {
    let (_home, served) = served(600).await;
    let leaves: Vec<_> = (0..600).map(|index| served.log.entry(index).unwrap().leaf).collect();
    let level0: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let (log, root) = (served.log.clone(), served.log.head().root);
    with(&served, move |http| {
        for prefix in ["", "/api/v2"] {
            let answer = http.get(&format!("{prefix}/checkpoint"));
            assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; charset=utf-8"));
            assert_eq!(answer.header("cache-control"), "public, max-age=2");
            assert_public(&answer, "checkpoint");
            let checkpoint = Checkpoint::verify(str::from_utf8(&answer.body).unwrap(), log.key()).unwrap();
            assert_eq!((checkpoint.size, checkpoint.root), (600, root));

            // Every width that a tree of 600 leaves has or had, also where the full tile exists.
            for (index, most) in [(0, 256), (1, 256), (2, 88)] {
                for width in 1..=most {
                    let path = TilePath::Hashes { level: 0, index, width };
                    let answer = http.get(&format!("{prefix}/{path}"));
                    assert_eq!(
                        (answer.status, answer.header("content-type")),
                        (200, "application/octet-stream"),
                        "{path}"
                    );
                    assert_eq!(answer.header("cache-control"), IMMUTABLE, "{path}");
                    let from = index as usize * 256;
                    assert_eq!(answer.body, level0[from..from + usize::from(width)].as_flattened(), "{path}");
                    assert_eq!(answer.body.len(), usize::from(width) * 32);
                    assert_public(&answer, "tile");
                }
            }
            for width in [1, 2] {
                let answer = http.get(&format!("{prefix}/tile/1/000.p/{width}"));
                assert_eq!(answer.body[..32], tile::node_in(&level0[..256], 8, 0).unwrap());
                assert_eq!((answer.status, answer.body.len()), (200, 32 * width));
            }
            for (path, range) in [
                ("tile/entries/000", 0..256),
                ("tile/entries/001", 256..512),
                ("tile/entries/001.p/7", 256..263),
                ("tile/entries/002.p/88", 512..600),
                ("tile/entries/002.p/1", 512..513),
            ] {
                let answer = http.get(&format!("{prefix}/{path}?cache=no"));
                assert_eq!((answer.status, answer.header("content-type")), (200, "application/octet-stream"), "{path}");
                assert_eq!(answer.header("cache-control"), IMMUTABLE, "{path}");
                assert_eq!(answer.header("vary"), "accept-encoding", "{path}");
                assert_eq!(unbundle(&answer.body), leaves[range], "{path}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_paths_are_not_there_and_may_be_there_later() {
    let (_home, served) = served(600).await;
    let wrong = [
        // Not published yet, or never.
        "/tile/0/002",
        "/tile/0/002.p/89",
        "/tile/0/002.p/255",
        "/tile/0/003",
        "/tile/0/003.p/1",
        "/tile/1/000",
        "/tile/1/000.p/3",
        "/tile/2/000",
        "/tile/2/000.p/1",
        "/tile/7/000.p/1",
        "/tile/8/000.p/1",
        "/tile/63/000",
        "/tile/entries/002",
        "/tile/entries/002.p/89",
        "/tile/entries/003.p/1",
        "/tile/0/x018/x446/x744/x073/x709/x551/615",
        // Empty tiles, and full ones that call themselves partial.
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/257",
        "/tile/entries/000.p/0",
        "/tile/entries/000.p/256",
        // Levels that are none.
        "/tile/64/000",
        "/tile/256/000",
        "/tile/-1/000",
        "/tile/00/000",
        "/tile/01/000",
        "/tile/+0/000",
        "/tile/data/000",
        "/tile/8/0/000",
        "/tile/ENTRIES/000",
        "/tile//000",
        "/tile/0/",
        "/tile/0",
        "/tile/entries",
        "/tile/entries/",
        // Indexes that are none, or are written in another way.
        "/tile/0/0",
        "/tile/0/00",
        "/tile/0/0000",
        "/tile/0/x000/000",
        "/tile/0/x000",
        "/tile/0/000/000",
        "/tile/0/x00/000",
        "/tile/0/X000/000",
        "/tile/0/00a",
        "/tile/0/-01",
        "/tile/0/+00",
        "/tile/0/ 00",
        "/tile/0/000/",
        "/tile/0/000//",
        "/tile/0/x018446744073709551616/000",
        "/tile/0/x018/x446/x744/x073/x709/x551/616",
        "/tile/0/000.p",
        "/tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "/tile/0/٠٠٠",
        // Widths that are none.
        "/tile/0/000.p/",
        "/tile/0/000.p/01",
        "/tile/0/000.p/-1",
        "/tile/0/000.p/+1",
        "/tile/0/000.p/1/",
        "/tile/0/000.p/1a",
        "/tile/0/000.p/65537",
        "/tile/0/000.p/99999999999999999999",
        "/tile/0/000.P/1",
        "/tile/0/000.p/1.p/1",
        "/tile/0/000.p/x",
        // Other names of what is there.
        "/tile/0/%30%30%30",
        "/tile/%30/000",
        "/tile/0/000%2Ep/1",
        "/tile/0/000.p%2F1",
        "/tile/entries%2F000",
        "/tile/0%2F000",
        "/tile/./0/000",
        "/tile/0/../0/000",
        "/tile/0/000;v=1",
        "//tile/0/000",
    ];
    with(&served, move |http| {
        for prefix in ["", "/api/v2"] {
            for path in wrong.iter().filter(|path| path.is_ascii() && !path.contains(' ')) {
                let answer = http.get(&format!("{prefix}{path}"));
                assert_eq!(answer.status, 404, "{prefix}{path}");
                if !path.starts_with("//") {
                    assert_eq!(answer.header("cache-control"), "no-store", "{prefix}{path}");
                    assert_public(&answer, path);
                }
            }
        }
        for path in ["/tile/0/000", "/tile/0/002.p/88", "/tile/1/000.p/2", "/tile/entries/002.p/88", "/checkpoint"] {
            assert_eq!(http.get(path).status, 200, "{path}: the others are not missing for another reason");
        }
    })
    .await;
    for path in wrong {
        let parsed = path.strip_prefix('/').unwrap().parse::<TilePath>();
        assert!(parsed.is_err() || !served.log.has_resource(parsed.unwrap()), "{path}");
    }
    // What was not there is there once the log has grown, and nobody was told to remember that it was not.
    fill(&served.log, 770).await;
    with(&served, |http| {
        for path in ["/tile/0/002", "/tile/0/002.p/89", "/tile/0/003.p/1", "/tile/1/000.p/3", "/tile/entries/002"] {
            assert_eq!(http.get(path).status, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_conditions_and_other_methods() {
    let (_home, served) = served(300).await;
    let log = served.log.clone();
    with(&served, move |http| {
        for path in
            ["/checkpoint", "/tile/0/000", "/tile/0/001.p/44", "/tile/entries/000", "/api/v2/tile/entries/001.p/3"]
        {
            let (get, head) = (http.get(path), http.send("HEAD", path, &[]));
            let mut dated = [get.headers.clone(), head.headers.clone()];
            for headers in &mut dated {
                headers.remove("date");
            }
            assert_eq!(dated[0], dated[1], "{path}");
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, get.body.len().to_string().as_str()),
                "{path}"
            );
            let tag = get.header("etag").to_owned();
            assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 4, "{path}: {tag}");
            for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
                let answer = http.send("GET", path, &[("if-none-match", &known)]);
                assert_eq!((answer.status, answer.header("etag")), (304, tag.as_str()), "{path} {known}");
                assert_eq!(answer.header("cache-control"), get.header("cache-control"), "{path}");
                assert_public(&answer, path);
            }
            for other in ["\"x\"", "x", "", &tag[1..]] {
                assert_eq!(http.send("GET", path, &[("if-none-match", other)]).status, 200, "{path} {other}");
            }
            let preflight =
                http.send("OPTIONS", path, &[("origin", "https://x.test"), ("access-control-request-method", "GET")]);
            assert_eq!(
                (preflight.status, preflight.header("access-control-allow-methods")),
                (204, "GET, HEAD, OPTIONS")
            );
            assert_public(&preflight, path);
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                let answer = http.send(method, path, &[("content-length", "0")]);
                assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, OPTIONS"), "{method} {path}");
                assert_eq!(answer.header("cache-control"), "no-store");
            }
        }
        // What is known of a tile that is not there is no reason to say that it has not changed.
        for path in ["/tile/0/001", "/tile/0/005", "/tile/x"] {
            assert_eq!(http.send("GET", path, &[("if-none-match", "*")]).status, 404, "{path}");
            assert_eq!(http.send("HEAD", path, &[]).status, 404, "{path}");
        }
    })
    .await;
    let tag = with(&served, |http| http.get("/checkpoint").header("etag").to_owned()).await;
    fill(&log, 301).await;
    let answer = with(&served, move |http| http.send("GET", "/checkpoint", &[("if-none-match", &tag)])).await;
    assert_eq!(answer.status, 200, "another checkpoint has another tag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_are_compressed_for_who_takes_it() {
    let (_home, served) = served(600).await;
    let unzipped = |answer: &Answer| {
        let mut bytes = Vec::new();
        GzDecoder::new(answer.body.as_slice()).read_to_end(&mut bytes).unwrap();
        bytes
    };
    with(&served, move |http| {
        for path in ["/tile/entries/000", "/tile/entries/002.p/88", "/api/v2/tile/entries/001.p/200"] {
            let plain = http.get(path);
            for accepts in ["gzip", "identity, gzip", "br;q=1.0, gzip;q=0.5", "GZIP", "*", "x-gzip"] {
                let zipped = http.send("GET", path, &[("accept-encoding", accepts)]);
                assert_eq!((zipped.status, zipped.header("content-encoding")), (200, "gzip"), "{accepts}");
                assert_eq!(unzipped(&zipped), plain.body, "{accepts}");
                assert!(zipped.body.len() * 2 < plain.body.len(), "{} of {}", zipped.body.len(), plain.body.len());
                assert_ne!(zipped.header("etag"), plain.header("etag"), "two encodings, two tags");
                assert_eq!(zipped.header("cache-control"), IMMUTABLE);
                let tag = zipped.header("etag").to_owned();
                assert_eq!(
                    http.send("GET", path, &[("accept-encoding", accepts), ("if-none-match", &tag)]).status,
                    304
                );
            }
            for accepts in ["identity", "br", "gzip;q=0", "gzip; q=0.0, *", "", "gzipped", "*;q=0"] {
                let answer = http.send("GET", path, &[("accept-encoding", accepts)]);
                assert_eq!((answer.header("content-encoding"), &answer.body), ("", &plain.body), "{accepts}");
            }
        }
        for path in ["/tile/0/000", "/tile/1/000.p/2", "/checkpoint"] {
            let answer = http.send("GET", path, &[("accept-encoding", "gzip")]);
            assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("", ""), "{path}");
        }
    })
    .await;
    // Enough others are being compressed: plain bytes, at once.
    let busy = serve(served.log.clone(), served.dir.clone(), 0).await;
    let answer = with(&busy, |http| http.send("GET", "/tile/entries/000", &[("accept-encoding", "gzip")])).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, ""));
    assert_eq!(unbundle(&answer.body).len(), 256);
}

/// Two logs behind one address: the host says which, and only under its own name does a cache keep a tile for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_log_is_found_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let first = new_log(&home.path().join("log"));
    fill(&first, 3).await;
    let logs = Logs::from(first.clone());
    let served = serve_all(logs.clone(), first.clone(), home.path().join("log"), 2).await;
    let ask = |host: &'static str, path: &'static str| with(&served, move |http| http.send_to(host, "GET", path, &[]));
    let (named, alias) = (ask(ORIGIN, "/tile/0/000.p/2").await, ask("localhost", "/tile/0/000.p/2").await);
    assert_eq!((named.status, &named.body), (alias.status, &alias.body));
    assert_eq!((named.header("cache-control"), alias.header("cache-control")), (IMMUTABLE, "public, max-age=2"));
    let second = new_log_of(&home.path().join("log-2"), "second.test");
    fill(&second, 5).await;
    logs.succeed(second.clone()).unwrap();
    for (host, log, cache) in [
        (ORIGIN, &first, IMMUTABLE),
        ("tiles.test:8443", &first, IMMUTABLE),
        ("second.test", &second, IMMUTABLE),
        ("localhost", &second, "public, max-age=2"),
        ("127.0.0.1:8443", &second, "public, max-age=2"),
        ("[::1]:8443", &second, "public, max-age=2"),
    ] {
        let note = ask(host, "/checkpoint").await.body;
        assert_eq!(Checkpoint::verify(str::from_utf8(&note).unwrap(), log.key()).unwrap().size, log.size(), "{host}");
        for path in ["/tile/0/000.p/2", "/api/v2/tile/0/000.p/2"] {
            let answer = ask(host, path).await;
            let hashes = [0, 1].map(|index| leaf_hash(&log.entry(index).unwrap().leaf));
            assert_eq!(
                (answer.body.as_slice(), answer.header("cache-control")),
                (hashes.as_flattened(), cache),
                "{host}"
            );
        }
    }
    // The same path of another log is not what somebody has who asked for it before.
    let tag = alias.header("etag").to_owned();
    let again =
        with(&served, move |http| http.send_to("localhost", "GET", "/tile/0/000.p/2", &[("if-none-match", &tag)]));
    assert_eq!(again.await.status, 200);
}

/// A leaf that rotted on disk is not sent out to be kept for ever; what is whole still is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotten_bytes_are_not_served() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    fill(&log, 600).await;
    log.close();
    drop(log);
    damage(&dir, "leaves", &300_u64.to_be_bytes()).unwrap();
    let served = serve(open(&dir), dir, 2).await;
    with(&served, |http| {
        for path in ["/tile/entries/001", "/tile/entries/001.p/45", "/api/v2/tile/entries/001.p/200"] {
            let answer = http.get(path);
            assert_eq!((answer.status, answer.header("cache-control")), (500, "no-store"), "{path}");
            assert_public(&answer, path);
        }
        for path in ["/tile/entries/001.p/44", "/tile/entries/000", "/tile/entries/002.p/88", "/tile/0/001"] {
            assert_eq!(http.get(path).status, 200, "{path}");
        }
    })
    .await;
}

/// Changes one byte of a stored value, past everything that guards it; not while somebody has the log open.
pub fn damage(dir: &std::path::Path, family: &str, key: &[u8]) -> Result<(), rocksdb::Error> {
    let path = dir.join("db");
    let names = DB::list_cf(&Options::default(), &path)?;
    let db = DB::open_cf(&Options::default(), &path, names)?;
    let family = db.cf_handle(family).unwrap();
    let mut value = db.get_cf(family, key)?.unwrap();
    value[3] ^= 1;
    db.put_cf(family, key, value)
}

/// The whole router, over TLS: the log is there, and what is nowhere is not answered as gRPC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_serves_its_log_to_strangers() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(daemon.ca()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let get = async |path: &str| client.get(format!("https://localhost:{}{path}", daemon.public)).send().await.unwrap();
    for path in ["/checkpoint", "/api/v2/checkpoint", "/tile/0/000.p/1", "/api/v2/tile/entries/000.p/1"] {
        let answer = get(path).await;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["access-control-allow-origin"].as_bytes()),
            (200, b"*".as_slice())
        );
    }
    for path in
        ["/", "/tile", "/tile/", "/checkpoint/", "/api/v2", "/api/v2/", "/api/v1/checkpoint", "/nothing", "/tile/0/000"]
    {
        let answer = get(path).await;
        assert_eq!(answer.status().as_u16(), 404, "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        assert!(answer.headers().get("grpc-status").is_none(), "{path}");
    }
    // A gRPC client that calls what is not there still gets an answer that it understands.
    let call = client.post(format!("https://localhost:{}/countersign.v1.LogService/Nothing", daemon.public));
    let answer = call.header("content-type", "application/grpc").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].as_bytes()), (200, b"12".as_slice()));
}
