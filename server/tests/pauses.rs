//! Leaders whose process is stopped and woken up later, as a virtual machine that was suspended.

mod support;

use coracle_server::client::{Client, Value};
use std::time::Duration;
use support::{ask, formed, set, wait};

/// CK-2: a leader with a lease sleeps for longer than that, with reads and writes of clients in its sockets, while another leads and
/// acknowledges newer writes. When it wakes up it serves nothing that is stale, and everybody gets an answer. (More than one rule sees
/// to that: its lease has ended, it has not heard a majority, and it takes in what others sent before it answers.)
#[test]
fn ck_2_a_leader_that_slept_serves_nothing_stale_when_it_wakes_up() {
    let (cluster, _directory) = formed(3, &["--lease", "300ms", "--timeout", "60s"]);
    for round in 0..3 {
        let (asleep, _) = cluster.leader().unwrap();
        let mut readers: Vec<Client> = (0..8).map(|_| cluster.node(asleep).client().unwrap()).collect();
        let mut writer = cluster.node(asleep).client().unwrap();
        set(&mut writer, "k", &format!("old-{round}"));
        // By its lease.
        for reader in &mut readers {
            assert_eq!(ask(reader, "GET k"), Value::Bulk(format!("old-{round}").into()));
        }
        cluster.freeze(asleep, true).unwrap();
        // They are there when it wakes up, before any word of another leader.
        for reader in &mut readers {
            reader.send(&[&[b"GET", b"k"]]).unwrap();
        }
        writer.send(&[&[b"SET", b"late", round.to_string().as_bytes()]]).unwrap();
        let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != asleep).collect();
        let new = format!("SET k new-{round}");
        wait("a write at another leader", || {
            let mut clients = others.iter().filter_map(|id| cluster.node(*id).client().ok());
            clients.any(|mut client| ask(&mut client, &new) == Value::Simple("OK".into())).then_some(())
        });
        // Longer than promises made to it hold.
        std::thread::sleep(Duration::from_millis(1000));
        cluster.freeze(asleep, false).unwrap();
        for reader in &mut readers {
            match reader.receive().unwrap() {
                Value::Bulk(value) => assert_eq!(value, format!("new-{round}").into_bytes(), "a stale read"),
                Value::Error(why) => assert!(!why.is_empty()),
                other => panic!("{other:?}"),
            }
        }
        // Done, or not, or nobody knows: it is answered.
        let late = writer.receive().unwrap();
        assert!(matches!(late, Value::Simple(_) | Value::Error(_)), "{late:?}");
        if late == Value::Simple("OK".into()) {
            assert_eq!(ask(&mut writer, "GET late"), Value::Bulk(round.to_string().into()));
        }
        assert_eq!(ask(&mut writer, "GET k"), Value::Bulk(format!("new-{round}").into()));
    }
    cluster.agree().unwrap();
}
