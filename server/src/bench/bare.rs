//! The same bytes without Raft: three processes that write and sync what a client sends.
//!
//! The first takes SETs in the Redis protocol, passes their bytes on to two followers and writes them
//! itself at the same time. A SET is answered once the first and one follower have synced it. Nothing is
//! elected, checked, indexed or applied, and a lost process is the end: this is what a replicated write
//! costs at least in this shape. The shape is the server's: one thread for everything but one that writes
//! and syncs; what comes while a sync runs goes into the next one; batches of whole blocks on a file of
//! zeros, in which each command has the header that an entry of the log has.

use super::{raw, runtime};
use crate::resp::Parser;
use bytes::{BufMut, Bytes, BytesMut};
use coracle::entry::HEADER;
use coracle::storage::disk::DiskFile;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc as channel};
use tokio::task::{LocalSet, spawn_local};

/// The file's length in bytes, as a segment's of the log. At its end, writing begins anew.
const FILE: u64 = 64 << 20;

/// The most that one sync writes, in bytes.
const MAX_BATCH: usize = 8 << 20;

/// How much is read at once, in bytes.
const READ: usize = 64 << 10;

/// The bytes in front of what is passed on: its length, and the number of its last command.
const FRAME: usize = 4 + 8;

/// Commands up to a number, as they go to the disks.
type Batch = (u64, Bytes);

/// Runs the first process until its standard input ends.
pub(super) fn first(directory: &Path, followers: &[String]) -> Result<(), String> {
    serve(directory, |orders, durable| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut sinks = Vec::new();
        let first = Rc::new(First::default());
        for (i, address) in followers.iter().enumerate() {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (source, sink) = stream.into_split();
            sinks.push(sink);
            end_with(collect(source, i, first.clone()));
        }
        end_with(pass_on(first.clone(), sinks, orders));
        end_with(count_own(first.clone(), durable));
        ready(&listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(take_commands(stream, first.clone()));
        }
    })
}

/// Runs a follower until its standard input ends.
pub(super) fn follower(directory: &Path) -> Result<(), String> {
    serve(directory, |orders, mut durable| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ready(&listener)?;
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (source, mut sink) = stream.into_split();
        end_with(write_what_comes(source, orders));
        while let Some(number) = durable.recv().await {
            sink.write_all(&number.to_le_bytes()).await?;
        }
        Err(io::Error::other("the writer ended"))
    })
}

/// Starts the writer and runs the rest on this thread, with the two ends of the writer's queues.
fn serve<R: Future<Output = io::Result<()>>>(
    directory: &Path,
    role: impl FnOnce(mpsc::Sender<Batch>, channel::UnboundedReceiver<u64>) -> R,
) -> Result<(), String> {
    // Whoever started this process is gone when its pipe is; there is nothing to clean up.
    std::thread::spawn(|| {
        drop(io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    let file = raw::zeros(directory, "bare", FILE)?;
    let (orders, inbox) = mpsc::channel();
    let (report, durable) = channel::unbounded_channel();
    std::thread::spawn(move || {
        if let Err(error) = write(&*file, &inbox, &report) {
            eprintln!("the bare writer failed: {error}");
        }
    });
    let ended = LocalSet::new().block_on(&runtime()?, role(orders, durable));
    ended.map_err(|error| format!("a bare process failed: {error}"))
}

fn ready(listener: &TcpListener) -> io::Result<()> {
    println!("bare ready: {}", listener.local_addr()?);
    io::stdout().flush()
}

/// A task without which the process is of no use.
fn end_with(task: impl Future<Output = io::Result<()>> + 'static) {
    spawn_local(async {
        if let Err(error) = task.await {
            eprintln!("a bare process ended: {error}");
        }
        std::process::exit(1);
    });
}

/// Writes and syncs all that is there, again and again, and says up to which command.
fn write(
    file: &dyn DiskFile,
    inbox: &mpsc::Receiver<Batch>,
    report: &channel::UnboundedSender<u64>,
) -> io::Result<()> {
    let (mut offset, mut buffer) = (0, Vec::new());
    while let Ok((mut last, bytes)) = inbox.recv() {
        buffer.clear();
        // The header of a batch.
        buffer.extend_from_slice(&[0; HEADER]);
        buffer.extend_from_slice(&bytes);
        while buffer.len() < MAX_BATCH
            && let Ok((number, bytes)) = inbox.try_recv()
        {
            buffer.extend_from_slice(&bytes);
            last = number;
        }
        buffer.resize(buffer.len().next_multiple_of(raw::BLOCK), 0);
        if offset + buffer.len() as u64 > FILE {
            offset = 0;
        }
        file.write_at(&buffer, offset)?;
        file.sync_data()?;
        offset += buffer.len() as u64;
        // Nobody listens any more if the process is about to end.
        let _ = report.send(last);
    }
    Ok(())
}

/// Hands to the writer what the first process sends.
async fn write_what_comes(mut source: OwnedReadHalf, orders: mpsc::Sender<Batch>) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        while let Some(head) = buffer.first_chunk::<FRAME>() {
            let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let last = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
            if buffer.len() < FRAME + len {
                break;
            }
            let bytes = buffer.split_to(FRAME + len).freeze().slice(FRAME..);
            orders.send((last, bytes)).map_err(io::Error::other)?;
        }
        if source.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The first process.
#[derive(Default)]
struct First {
    state: RefCell<State>,
    /// There are commands to pass on.
    more: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the newest command.
    newest: u64,
    /// Commands that nobody has got yet.
    gathered: BytesMut,
    /// Who waits for which command, in order.
    waiting: VecDeque<(u64, Rc<Client>)>,
    /// Up to where it is durable here, and on each follower.
    own: u64,
    others: [u64; 2],
}

struct Client {
    stream: Arc<TcpStream>,
    /// Answers that are due and not sent yet.
    due: Cell<usize>,
}

/// Reads a client's commands.
async fn take_commands(stream: TcpStream, first: Rc<First>) {
    let client = Rc::new(Client { stream: Arc::new(stream), due: Cell::new(0) });
    let (mut parser, mut buffer) = (Parser::new(), vec![0; READ]);
    loop {
        let len = match client.stream.readable().await.and_then(|()| client.stream.try_read(&mut buffer)) {
            Ok(0) => return,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let mut input = &buffer[..len];
        while let Ok(Some(command)) = parser.next(&mut input) {
            let mut state = first.state.borrow_mut();
            state.newest += 1;
            state.gathered.put_bytes(0, HEADER);
            (0..command.len()).for_each(|i| state.gathered.extend_from_slice(command.argument(i)));
            let number = state.newest;
            state.waiting.push_back((number, client.clone()));
        }
        first.more.notify_one();
    }
}

/// Sends what has gathered to the followers and to its writer.
async fn pass_on(
    first: Rc<First>,
    mut sinks: Vec<OwnedWriteHalf>,
    orders: mpsc::Sender<Batch>,
) -> io::Result<()> {
    loop {
        first.more.notified().await;
        let (last, bytes) = {
            let mut state = first.state.borrow_mut();
            (state.newest, state.gathered.split().freeze())
        };
        if bytes.is_empty() {
            continue;
        }
        let mut frame = BytesMut::with_capacity(FRAME + bytes.len());
        frame.put_u32_le(bytes.len() as u32);
        frame.put_u64_le(last);
        frame.put_slice(&bytes);
        for sink in &mut sinks {
            sink.write_all(&frame).await?;
        }
        orders.send((last, bytes)).map_err(io::Error::other)?;
    }
}

/// Takes a follower's word.
async fn collect(mut source: OwnedReadHalf, follower: usize, first: Rc<First>) -> io::Result<()> {
    loop {
        let number = source.read_u64_le().await?;
        first.state.borrow_mut().others[follower] = number;
        first.answer()?;
    }
}

/// Takes its writer's word.
async fn count_own(first: Rc<First>, mut durable: channel::UnboundedReceiver<u64>) -> io::Result<()> {
    while let Some(number) = durable.recv().await {
        first.state.borrow_mut().own = number;
        first.answer()?;
    }
    Err(io::Error::other("the writer ended"))
}

impl First {
    /// Answers all that is durable here and on one follower.
    fn answer(&self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let done = state.own.min(state.others[0].max(state.others[1]));
        let mut touched = Vec::new();
        while let Some((number, _)) = state.waiting.front()
            && *number <= done
            && let Some((_, client)) = state.waiting.pop_front()
        {
            client.due.set(client.due.get() + 1);
            if client.due.get() == 1 {
                touched.push(client);
            }
        }
        for client in touched {
            let answers = b"+OK\r\n".repeat(client.due.take());
            // Who does not read its answers, which are few bytes, is not served; who left, does not care.
            match client.stream.try_write(&answers) {
                Ok(len) if len < answers.len() => return Err(io::Error::other("a client reads too slowly")),
                _ => {}
            }
        }
        Ok(())
    }
}
