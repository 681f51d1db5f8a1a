//! Commands and replies whose types serde cannot carry: refused or lost, and never the end of a node.

use bytes::Bytes;
use coracle::snapshot::{self, Save};
use coracle::{CodecError, Config, Context, Node, QueryContext, StateMachine, Storage, WriteError, codec};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Expression {
    Number(u64),
    Not(Box<Expression>),
    /// Cannot be read back when empty.
    Sum {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        of: Vec<u64>,
    },
    /// Its reply has no encoding.
    Path,
}

/// Counts what it applied.
#[derive(Default)]
struct Machine(u64);

impl StateMachine for Machine {
    type Command = Expression;
    type Reply = PathBuf;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, command: Expression) -> PathBuf {
        self.0 += 1;
        match command {
            Expression::Path => std::ffi::OsString::from_vec(vec![0xff]).into(),
            _ => PathBuf::new(),
        }
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|count| self.0 = count)
    }
}

/// The same in postcard, which was the default once: what is skipped stopped every node.
#[derive(Default)]
struct Small(Machine);

impl StateMachine for Small {
    type Command = Expression;
    type Reply = PathBuf;
    type Query = ();
    type Answer = u64;

    const SELF_DESCRIBING: bool = false;

    fn apply(&mut self, context: &mut Context, command: Expression) -> PathBuf {
        self.0.apply(context, command)
    }

    fn query(&self, context: &QueryContext, (): ()) -> u64 {
        self.0.query(context, ())
    }

    fn snapshot(&self) -> impl Save {
        self.0.snapshot()
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.0.restore(from)
    }

    fn encode_command(command: &Expression) -> Result<Bytes, CodecError> {
        codec::postcard::encode(command)
    }

    fn decode_command(bytes: &Bytes) -> Result<Expression, CodecError> {
        codec::postcard::decode(bytes)
    }
}

async fn alone<S: StateMachine>(machine: S) -> Node<S> {
    let node = Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), machine).await.unwrap();
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    node
}

async fn refuses<S: StateMachine<Command = Expression, Query = (), Answer = u64>>(
    node: &Node<S>,
    command: Expression,
) where
    S::Reply: std::fmt::Debug,
{
    let Err(WriteError::Invalid(problem)) = node.write(command).await else { panic!("it was taken") };
    assert!(problem.contains("Expression cannot be read back"), "{problem}");
    assert_eq!(node.read(()).await, Ok(0), "the node goes on, and nothing was applied");
}

#[tokio::test]
async fn a_command_that_cannot_be_read_back_is_refused_and_the_node_goes_on() {
    let node = alone(Machine::default()).await;
    refuses(&node, Expression::Sum { of: vec![] }).await;
    let deep = (0..1000).fold(Expression::Number(1), |inner, _| Expression::Not(inner.into()));
    refuses(&node, deep).await;
    assert_eq!(node.write(Expression::Sum { of: vec![1] }).await, Ok(PathBuf::new()));
    refuses(&alone(Small::default()).await, Expression::Sum { of: vec![] }).await;
}

#[tokio::test]
async fn a_reply_without_an_encoding_reaches_its_writer_and_stops_nobody() {
    let node = alone(Machine::default()).await;
    assert_eq!(node.write(Expression::Path).await.unwrap().into_os_string().into_vec(), [0xff]);
    assert_eq!(node.read(()).await, Ok(1));
}
