//! Loads an etcd: so many requests under way at once, over so many connections, each a put or a linearizable range of one
//! key out of ten thousand, for so long. What `coracle bench` does to a cluster of Coracle, with the protocol of etcd (gRPC over
//! HTTP/2), written by hand so that the client costs as little as that one.

use bytes::{BufMut, Bytes, BytesMut};
use clap::Parser;
use h2::client::SendRequest;
use http::{Method, Request};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// As many keys as `coracle bench` uses, and as long.
const KEYS: u64 = 10_000;

/// Load an etcd, and tell how it took it
#[derive(Parser)]
struct Load {
    /// The client address of the leader
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Number of requests under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    clients: usize,
    /// Connections that the clients share
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    connections: usize,
    /// The length of a value, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_size: usize,
    /// How long to measure, after a fifth of that
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// How many of a hundred requests are reads
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    reads: u64,
}

/// What is asked for.
struct Wishes {
    dice: u64,
    reads: u64,
    value: Vec<u8>,
}

impl Wishes {
    /// Marsaglia's xorshift.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    /// The next request: its path and its message, as gRPC frames it.
    fn next(&mut self) -> (&'static str, Bytes) {
        let reads = self.roll() % 100 < self.reads;
        let key = format!("bench:{:08}", self.roll() % KEYS);
        let mut message = BytesMut::new();
        field(&mut message, 1, key.as_bytes());
        let path = if reads {
            "/etcdserverpb.KV/Range"
        } else {
            field(&mut message, 2, &self.value);
            "/etcdserverpb.KV/Put"
        };
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put(message);
        (path, frame.freeze())
    }
}

/// A field of bytes in a Protobuf message.
fn field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length > 127 {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(bytes);
}

/// One connection, for any number of requests at once.
async fn connect(to: &str) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("{to}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    // An end of it is told to whoever asks next.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Asks, and waits for the whole answer.
async fn ask(sender: SendRequest<Bytes>, to: &str, wishes: &mut Wishes) -> Result<(), String> {
    let failed = |error: h2::Error| error.to_string();
    let (path, frame) = wishes.next();
    let request = Request::builder().method(Method::POST).uri(format!("http://{to}{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(());
    let request = request.map_err(|error| error.to_string())?;
    let mut sender = sender.ready().await.map_err(failed)?;
    let (answer, mut body) = sender.send_request(request, false).map_err(failed)?;
    body.send_data(frame, true).map_err(failed)?;
    let mut answer = answer.await.map_err(failed)?.into_body();
    while let Some(part) = answer.data().await {
        let part = part.map_err(failed)?;
        answer.flow_control().release_capacity(part.len()).map_err(failed)?;
    }
    let trailers = answer.trailers().await.map_err(failed)?.unwrap_or_default();
    match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        status => Err(format!("etcd said {status:?}: {:?}", trailers.get("grpc-message"))),
    }
}

/// One client: how long each of its requests took that began and ended within the time.
async fn client(
    sender: SendRequest<Bytes>,
    to: String,
    mut wishes: Wishes,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        ask(sender.clone(), &to, &mut wishes).await?;
        if began >= from && Instant::now() <= until {
            took.push(began.elapsed());
        }
    }
    Ok(took)
}

async fn load(load: Load) -> Result<(), String> {
    let mut connections = Vec::new();
    for _ in 0..load.connections.clamp(1, load.clients.max(1)) {
        connections.push(connect(&load.to).await?);
    }
    let from = Instant::now() + Duration::from_millis(200 * load.seconds);
    let until = from + Duration::from_secs(load.seconds);
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        let dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
        let wishes = Wishes { dice, reads: load.reads, value: vec![b'x'; load.value_size] };
        let sender = connections[number % connections.len()].clone();
        clients.spawn(client(sender, load.to.clone(), wishes, from, until));
    }
    let mut took = Vec::new();
    while let Some(one) = clients.join_next().await {
        took.extend(one.map_err(|error| error.to_string())??);
    }
    took.sort_unstable();
    let at = |part: f64| {
        let place = (took.len() as f64 * part) as usize;
        took.get(place.min(took.len().saturating_sub(1))).map_or(0, Duration::as_micros)
    };
    let per_second = took.len() as f64 / load.seconds as f64;
    println!(
        "{}",
        serde_json::json!({"per_second": per_second, "p50_us": at(0.5) as u64, "p99_us": at(0.99) as u64})
    );
    Ok(())
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let loaded =
        runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(load(Load::parse())));
    match loaded {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etcd-load: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_etcd_reads_it() {
        let mut wishes = Wishes { dice: 1, reads: 0, value: vec![b'x'; 200] };
        let (path, frame) = wishes.next();
        assert_eq!((path, &frame[..7]), ("/etcdserverpb.KV/Put", &[0, 0, 0, 0, 219, 10, 14][..]));
        assert_eq!((&frame[7..13], &frame[21..24], frame.len()), (&b"bench:"[..], &[18, 200, 1][..], 224));
    }
}
