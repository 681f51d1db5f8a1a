//! The linearizability checker against histories whose verdict is known: by construction, by trying every
//! order, by a few lines written by hand, and by those who published them.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle::sim::history::generate::{Flaw, Object, Shape, broken, correct};
use coracle::sim::history::kv::{self, Cell, Command, KeyValue};
use coracle::sim::history::register::{self, Input, Output, Register};
use coracle::sim::history::{
    Budget, Explanation, History, Model, Outcome, Recorded, Verdict, check_text, checker, parse,
};
use proptest::prelude::*;

fn check(history: &History<Input, Output>) -> Verdict {
    let verdict = register::check(history, Budget::default());
    let plain = checker::check(&Register, history, Budget::default());
    assert_eq!(std::mem::discriminant(&verdict), std::mem::discriminant(&plain));
    verdict
}

fn explained(verdict: Verdict) -> Explanation {
    match verdict {
        Verdict::NotLinearizable(explanation) => *explanation,
        other => panic!("not linearizable, but the verdict is {other:?}"),
    }
}

/// Writes `value` and is answered.
fn write(history: &mut History<Input, Output>, client: u64, value: i64) {
    let write = history.invoke(client, Input::Write(value));
    history.complete(write, Output::Done);
}

/// Reads `value`, at once.
fn read(history: &mut History<Input, Output>, client: u64, value: Option<i64>) {
    let read = history.invoke(client, Input::Read);
    history.complete(read, Output::Value(value));
}

fn command(history: &mut History<kv::Input, kv::Output>, client: u64, command: Command, output: kv::Output) {
    let id = history.invoke(client, kv::Input::new("k", command));
    history.complete(id, output);
}

fn holds(value: &str) -> kv::Output {
    kv::Output::Value(Some(value.to_string().into()))
}

fn append(tail: &'static str) -> Command {
    Command::Append(tail.into())
}

#[test]
fn nothing_is_linearizable() {
    assert_eq!(check(&History::new()), Verdict::Linearizable);
    assert_eq!(KeyValue::new().check(&History::new(), Budget::default()), Verdict::Linearizable);
}

#[test]
fn a_read_concurrent_with_a_write_may_see_either_value() {
    for seen in [1, 2] {
        let mut history = History::new();
        write(&mut history, 1, 1);
        let open = history.invoke(1, Input::Write(2));
        read(&mut history, 2, Some(seen));
        history.complete(open, Output::Done);
        assert_eq!(check(&history), Verdict::Linearizable);
    }
}

#[test]
fn a_stale_read_is_found_and_explained() {
    let mut history = History::new();
    write(&mut history, 1, 1);
    write(&mut history, 1, 2);
    let other = history.invoke(3, Input::Write(3));
    read(&mut history, 2, Some(1));
    history.complete(other, Output::Done);
    let why = explained(check(&history));
    assert_eq!(why.stuck, "client 2: read -> 1  [6..7]");
    assert_eq!(why.placed, ["client 1: write 1 -> ok  [1..2]", "client 1: write 2 -> ok  [3..4]"]);
    assert_eq!(why.concurrent, ["client 3: write 3 -> ok  [5..8]"]);
    assert_eq!(why.state, "Some(2)");
    assert!(why.to_string().contains("cannot be placed"), "{why}");
}

#[test]
fn reads_do_not_go_back() {
    let mut history = History::new();
    write(&mut history, 1, 1);
    let open = history.invoke(1, Input::Write(2));
    read(&mut history, 2, Some(2));
    read(&mut history, 3, Some(1));
    history.complete(open, Output::Done);
    explained(check(&history));
}

#[test]
fn a_lost_update_is_found() {
    // Two clients both count up from 1, and both are told that it worked.
    let mut history = History::new();
    write(&mut history, 1, 1);
    let first = history.invoke(1, Input::Cas { from: 1, to: 2 });
    let second = history.invoke(2, Input::Cas { from: 1, to: 2 });
    history.complete(first, Output::Swapped(true));
    history.complete(second, Output::Swapped(true));
    explained(check(&history));
}

#[test]
fn a_compare_and_set_does_not_fail_where_it_had_to_succeed() {
    for (concurrent, linearizable) in [(false, false), (true, true)] {
        let mut history = History::new();
        write(&mut history, 1, 1);
        let other = concurrent.then(|| history.invoke(2, Input::Write(2)));
        let cas = history.invoke(1, Input::Cas { from: 1, to: 3 });
        history.complete(cas, Output::Swapped(false));
        if let Some(other) = other {
            history.complete(other, Output::Done);
        }
        assert_eq!(check(&history) == Verdict::Linearizable, linearizable);
    }
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_once() {
    let start = |reads: &[i64]| {
        let mut history = History::new();
        write(&mut history, 1, 1);
        history.invoke(2, Input::Write(9));
        for &value in reads {
            read(&mut history, 3, Some(value));
        }
        history
    };
    assert_eq!(check(&start(&[1, 1, 1])), Verdict::Linearizable, "never");
    assert_eq!(check(&start(&[1, 1, 9, 9])), Verdict::Linearizable, "late");
    explained(check(&start(&[1, 9, 1])));

    let mut history = start(&[1]);
    write(&mut history, 1, 2);
    read(&mut history, 3, Some(9));
    write(&mut history, 1, 3);
    read(&mut history, 3, Some(9));
    explained(check(&history));
}

#[test]
fn an_unknown_write_does_not_take_effect_before_it_is_asked() {
    let mut history = History::new();
    read(&mut history, 1, Some(9));
    history.invoke(2, Input::Write(9));
    explained(check(&history));
}

#[test]
fn a_refused_write_never_takes_effect() {
    let mut history = History::new();
    let refused = history.invoke(1, Input::Write(9));
    history.refuse(refused);
    history.complete(refused, Output::Done); // the first outcome stands
    read(&mut history, 1, None);
    assert_eq!(check(&history), Verdict::Linearizable);
    read(&mut history, 1, Some(9));
    explained(check(&history));
}

#[test]
fn unknown_operations_build_on_each_other() {
    let mut history = History::new();
    write(&mut history, 1, 1);
    history.invoke(2, Input::Cas { from: 2, to: 3 });
    history.invoke(3, Input::Cas { from: 1, to: 2 });
    history.invoke(4, Input::Cas { from: 3, to: 4 });
    read(&mut history, 1, Some(4));
    assert_eq!(check(&history), Verdict::Linearizable);
    read(&mut history, 1, Some(3));
    explained(check(&history));
}

#[test]
fn an_append_that_took_effect_twice_is_found() {
    let mut history = History::new();
    command(&mut history, 1, append("a"), kv::Output::Done);
    command(&mut history, 2, append("b"), kv::Output::Done);
    command(&mut history, 1, Command::Get, holds("ab"));
    assert_eq!(KeyValue::new().check(&history, Budget::default()), Verdict::Linearizable);
    command(&mut history, 1, Command::Get, holds("aba"));
    let why = explained(KeyValue::new().check(&history, Budget::default()));
    assert_eq!((why.key.as_deref(), why.state.as_str()), (Some("\"k\""), "\"ab\""));
}

#[test]
fn the_state_decides_and_not_only_who_was_placed() {
    // Both orders of the two appends place the same operations. Only the second explains the read.
    for seen in ["ab", "ba"] {
        let mut history = History::new();
        let one = history.invoke(1, kv::Input::new("k", append("a")));
        let two = history.invoke(2, kv::Input::new("k", append("b")));
        history.complete(one, kv::Output::Done);
        history.complete(two, kv::Output::Done);
        command(&mut history, 1, Command::Get, holds(seen));
        assert_eq!(KeyValue::new().check(&history, Budget::default()), Verdict::Linearizable);
    }
}

#[test]
fn absent_and_empty_differ_unless_told_otherwise() {
    let mut history = History::new();
    command(&mut history, 1, Command::Get, holds(""));
    explained(KeyValue::new().check(&history, Budget::default()));
    assert_eq!(KeyValue::empty().check(&history, Budget::default()), Verdict::Linearizable);
}

#[test]
fn an_answer_to_another_question_is_never_right() {
    let mut history = History::new();
    let write = history.invoke(1, Input::Write(1));
    history.complete(write, Output::Swapped(true));
    explained(check(&history));
}

#[test]
fn keys_are_judged_each_on_its_own() {
    let mut history = History::new();
    for key in ["a", "b"] {
        let put = history.invoke(1, kv::Input::new(key, Command::Put(key.into())));
        history.complete(put, kv::Output::Done);
    }
    assert_eq!(KeyValue::new().check(&history, Budget::default()), Verdict::Linearizable);
    let get = history.invoke(1, kv::Input::new("b", Command::Get));
    history.complete(get, kv::Output::Value(None));
    let why = explained(KeyValue::new().check(&history, Budget::default()));
    assert_eq!(why.key.as_deref(), Some("\"b\""));
}

#[test]
fn a_budget_that_is_spent_leaves_it_undecided() {
    // Thirty concurrent writes of values that are all looked for later, and no order of the reads is right.
    let mut history = History::new();
    let writes: Vec<_> = (0..30).map(|n| history.invoke(n as u64, Input::Write(n))).collect();
    for write in writes {
        history.complete(write, Output::Done);
    }
    for n in 0..30 {
        read(&mut history, 1, Some(n));
    }
    let small = Budget { steps: 100_000, ..Budget::default() };
    assert_eq!(register::check(&history, small), Verdict::Undecided);
    let forgetful = Budget { configurations: 1_000, ..Budget::default() };
    assert_eq!(register::check(&history, forgetful), Verdict::Undecided);
    assert_eq!(register::check(&history, Budget { steps: 0, configurations: 0 }), Verdict::Undecided);
}

#[test]
fn ten_thousand_generated_histories_get_the_verdict_they_were_made_for() {
    let mut flaws: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..10_000u64 {
        let object = if seed / 2 % 2 == 0 { Object::Register } else { Object::KeyValue };
        let shape = Shape {
            operations: 10 + (seed % 131) as usize,
            clients: 2 + seed / 4 % 9,
            keys: 1 + seed / 4 % 3,
            unknown: seed / 4 % 16,
        };
        if seed % 2 == 0 {
            let history = correct(object, shape, seed / 2);
            let verdict = history.check(Budget::default());
            assert_eq!(verdict, Verdict::Linearizable, "{object:?}, seed {}, {shape:?}", seed / 2);
        } else {
            let (history, flaw) = broken(object, shape, seed);
            *flaws.entry(format!("{object:?} {flaw:?}")).or_default() += 1;
            match history.check(Budget::default()) {
                Verdict::NotLinearizable(_) => {}
                other => panic!("{other:?}, but {flaw:?}: {object:?}, seed {seed}, {shape:?}"),
            }
        }
    }
    for flaw in [Flaw::Stale, Flaw::Backwards, Flaw::Phantom, Flaw::SwappedTwice] {
        for object in [Object::Register, Object::KeyValue] {
            let times = flaws.get(&format!("{object:?} {flaw:?}")).copied().unwrap_or(0);
            assert!(times >= 50, "{object:?} {flaw:?} happened {times} times: {flaws:?}");
        }
    }
    for flaw in [Flaw::AppendedTwice, Flaw::Reordered] {
        let times = flaws.get(&format!("KeyValue {flaw:?}")).copied().unwrap_or(0);
        assert!(times >= 50, "{flaw:?} happened {times} times: {flaws:?}");
    }
}

#[test]
fn long_histories_with_many_clients_are_decided() {
    for object in [Object::Register, Object::KeyValue] {
        for seed in 0..10 {
            let shape = Shape { operations: 3_000, clients: 10, keys: 1, unknown: 5 };
            assert_eq!(correct(object, shape, seed).check(Budget::default()), Verdict::Linearizable);
            // That there is no order takes longer to find out: every choice of the unknown ones has to fail.
            let shape = Shape { operations: 800, ..shape };
            let verdict = broken(object, shape, seed).0.check(Budget::default());
            assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{object:?} {seed}: {verdict:?}");
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_history() {
    let shape = Shape::default();
    assert_eq!(correct(Object::KeyValue, shape, 7), correct(Object::KeyValue, shape, 7));
    assert_ne!(correct(Object::KeyValue, shape, 7), correct(Object::KeyValue, shape, 8));
    assert_eq!(broken(Object::Register, shape, 7), broken(Object::Register, shape, 7));
}

/// Tries every order, and every choice of the unknown operations: slow, and hard to get wrong.
fn oracle<M: Model>(model: &M, history: &History<M::Input, M::Output>) -> bool {
    fn go<M: Model>(
        model: &M,
        history: &History<M::Input, M::Output>,
        state: &M::State,
        placed: &mut Vec<bool>,
    ) -> bool {
        let operations = history.operations();
        let left = |placed: &[bool]| {
            let returned = |at: usize| match operations[at].outcome {
                Outcome::Returned { at, .. } => Some(at),
                _ => None,
            };
            (0..operations.len()).filter(|&at| !placed[at]).filter_map(returned).min()
        };
        let Some(first) = left(placed) else { return true };
        for at in 0..operations.len() {
            let operation = &operations[at];
            if placed[at] || operation.invoked > first || matches!(operation.outcome, Outcome::Refused) {
                continue;
            }
            if let Some(next) = model.step(state, &operation.input, operation.output()) {
                placed[at] = true;
                if go(model, history, &next, placed) {
                    return true;
                }
                placed[at] = false;
            }
        }
        false
    }
    go(model, history, &model.start(), &mut vec![false; history.len()])
}

/// A history of few operations by few clients, with whatever answers.
fn tiny<I: Clone + std::fmt::Debug, O: Clone + std::fmt::Debug>(
    operation: impl Strategy<Value = (I, Option<O>)>,
) -> impl Strategy<Value = History<I, O>> {
    // Each turn a client asks, or is answered what was drawn when it asked.
    prop::collection::vec((0..4usize, operation), 1..14).prop_map(|turns| {
        let mut history = History::new();
        let mut open = [None, None, None, None];
        for (client, (input, output)) in turns {
            match open[client].take() {
                Some((id, Some(answer))) => history.complete(id, answer),
                Some((_, None)) => {}
                None => open[client] = Some((history.invoke(client as u64, input), output)),
            }
        }
        history
    })
}

fn register_operation() -> impl Strategy<Value = (Input, Option<Output>)> {
    let value = || 0..3i64;
    prop_oneof![
        prop::option::of(value()).prop_map(|value| (Input::Read, Some(Output::Value(value)))),
        (value(), any::<bool>()).prop_map(|(to, known)| (Input::Write(to), known.then_some(Output::Done))),
        (value(), value(), prop::option::of(any::<bool>()))
            .prop_map(|(from, to, held)| (Input::Cas { from, to }, held.map(Output::Swapped))),
    ]
}

fn store_operation() -> impl Strategy<Value = (Command, Option<kv::Output>)> {
    let bytes = || prop_oneof![Just(""), Just("a"), Just("b"), Just("ab")].prop_map(bytes::Bytes::from);
    let long = || prop_oneof![Just(""), Just("a"), Just("b"), Just("ab"), Just("aab"), Just("ba")];
    let held = move || prop::option::of(long().prop_map(bytes::Bytes::from));
    let appended = prop_oneof![Just(None), Just(Some(kv::Output::Done))];
    let deleted = prop_oneof![
        Just(None),
        Just(Some(kv::Output::Done)),
        any::<bool>().prop_map(|there| Some(kv::Output::Deleted(there)))
    ];
    prop_oneof![
        4 => held().prop_map(|value| (Command::Get, Some(kv::Output::Value(value)))),
        2 => (bytes(), any::<bool>())
            .prop_map(|(to, known)| (Command::Put(to), known.then_some(kv::Output::Done))),
        4 => (bytes(), appended).prop_map(|(tail, output)| (Command::Append(tail), output)),
        1 => deleted.prop_map(|output| (Command::Delete, output)),
        2 => (held(), bytes(), prop::option::of(any::<bool>()))
            .prop_map(|(from, to, held)| (Command::Cas { from, to }, held.map(kv::Output::Swapped))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_register_is_judged_as_by_trying_every_order(history in tiny(register_operation())) {
        prop_assert_eq!(check(&history) == Verdict::Linearizable, oracle(&Register, &history));
    }

    #[test]
    fn a_store_is_judged_as_by_trying_every_order(history in tiny(store_operation())) {
        let linearizable = oracle(&Cell::default(), &history);
        let plain = checker::check(&Cell::default(), &history, Budget::default());
        prop_assert_eq!(plain == Verdict::Linearizable, linearizable);
        let keyed = keyed(&history);
        let fast = KeyValue::new().check(&keyed, Budget::default());
        prop_assert_eq!(fast == Verdict::Linearizable, linearizable);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n\t\u{e9}\u{2028}]{0,200}", cut in 0..2000usize) {
        let _ = check_text(&text);
        for sample in [REGISTER, STORE] {
            let mut text: String = sample.chars().take(cut % sample.len()).collect();
            let _ = check_text(&text);
            text.push_str(&sample.chars().skip(cut % sample.len() + 1).collect::<String>());
            let _ = check_text(&text);
        }
    }
}

/// The history of one key as one of a store.
fn keyed(history: &History<Command, kv::Output>) -> History<kv::Input, kv::Output> {
    let mut events: Vec<(u64, usize, bool)> = Vec::new();
    for (at, operation) in history.operations().iter().enumerate() {
        events.push((operation.invoked, at, false));
        if let Outcome::Returned { at: returned, .. } = operation.outcome {
            events.push((returned, at, true));
        }
    }
    events.sort_unstable();
    let (mut keyed, mut ids) = (History::new(), BTreeMap::new());
    for (_, at, returned) in events {
        let operation = &history.operations()[at];
        if let (true, Some(output)) = (returned, operation.output()) {
            keyed.complete(ids[&at], output.clone());
        } else {
            let input = kv::Input::new("k", operation.input.clone());
            ids.insert(at, keyed.invoke(operation.client, input));
        }
    }
    keyed
}

const REGISTER: &str = "\
INFO  jepsen.core - Running test
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 0\t:ok\t:read\tnil
INFO  jepsen.util - 1\t:invoke\t:write\t3
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 2\t:invoke\t:cas\t[3 4]
INFO  jepsen.util - 2\t:fail\t:cas\t[3 4]
INFO  jepsen.util - 1\t:ok\t:write\t3
INFO  jepsen.util - 3\t:invoke\t:read\tnil
INFO  jepsen.util - 3\t:fail\t:read\t:timed-out
INFO  jepsen.util - 3\t:invoke\t:cas\t[3 5]
INFO  jepsen.util - 3\t:info\t:cas\t:timed-out
INFO  jepsen.util - 4\t:invoke\t:read\tnil
INFO  jepsen.util - 4\t:ok\t:read\t5
";

const STORE: &str = r#"
{:process 0, :type :invoke, :f :get, :key "k", :value nil}
{:process 0, :type :ok, :f :get, :key "k", :value ""}
{:process 1, :type :invoke, :f :append, :key "k", :value "x \"1\" y"}
{:process 0, :type :invoke, :f :put, :key "j", :value "z"}
{:process 1, :type :ok, :f :append, :key "k", :value "x \"1\" y"}
; the put is never answered
{:f :get, :index 7, :type :invoke, :process 2, :value nil, :key "k"}
{:f :get, :index 8, :type :ok, :process 2, :value "x \"1\" y", :key "k"}
"#;

#[test]
fn both_formats_are_recognised() {
    let register = parse::parse(REGISTER).unwrap();
    assert!(matches!(&register, Recorded::Register(history) if history.len() == 6), "{register:?}");
    assert_eq!(check_text(REGISTER), Ok(Verdict::Linearizable));
    explained(check_text(&REGISTER.replace(":ok\t:read\t5", ":ok\t:read\t4")).unwrap());

    // That a compare-and-set failed is an answer: the register cannot have held 3 then.
    let before = "INFO  jepsen.util - 1\t:invoke\t:write\t3\nINFO  jepsen.util - 1\t:ok\t:write\t3\n";
    let failed = "INFO  jepsen.util - 2\t:invoke\t:cas\t[3 4]\nINFO  jepsen.util - 2\t:fail\t:cas\t[3 4]\n";
    assert_eq!(check_text(&[failed, before].concat()), Ok(Verdict::Linearizable));
    explained(check_text(&[before, failed].concat()).unwrap());

    let store = parse::parse(STORE).unwrap();
    assert!(matches!(&store, Recorded::KeyValue(_, history) if history.len() == 4), "{store:?}");
    assert_eq!(check_text(STORE), Ok(Verdict::Linearizable));
    explained(
        check_text(
            &STORE.replace(":ok, :f :get, :key \"k\", :value \"\"", ":ok, :f :get, :key \"k\", :value \"w\""),
        )
        .unwrap(),
    );
}

#[test]
fn a_text_that_is_no_history_is_refused_with_its_line() {
    let line = |text: &str| check_text(text).map_err(|error| error.line);
    assert_eq!(line(""), Err(None));
    assert_eq!(line("some other text\n"), Err(None));
    for (wrong, number) in [
        (REGISTER.replace("write\t3\nINFO  jepsen.util - :n", "write\tx\nINFO  jepsen.util - :n"), 4),
        (REGISTER.replace("2\t:fail\t:cas\t[3 4]", "2\t:fail\t:cas\t[3 5]"), 7),
        (REGISTER.replace("2\t:invoke\t:cas\t[3 4]", "2\t:invoke\t:cas\t[3 4 5]"), 6),
        (REGISTER.replace("1\t:ok", "0\t:ok"), 8),
        (REGISTER.replace("4\t:ok\t:read", "4\t:ok\t:pop"), 14),
        (
            REGISTER
                .replace("4\t:invoke", "1\t:invoke")
                .replace("INFO  jepsen.util - 1\t:ok\t:write\t3\n", ""),
            12,
        ),
        (STORE.replace("{:f :get, :index 7", "{:f :pop, :index 7"), 8),
        (STORE.replace("; the put", "the put"), 7),
        (STORE.replace(":key \"k\", :value \"\"}", ":key \"k\", :value \"}"), 3),
        (STORE.replace(":process 2, :value \"x", ":process 3, :value \"x"), 9),
    ] {
        assert_eq!(line(&wrong), Err(Some(number)), "{wrong}");
    }
}

/// The verdicts of a folder of published histories: `register/` with its `verdicts.tsv`, and `append/`, where
/// the names tell.
fn published(folder: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    let table = std::fs::read_to_string(folder.join("register/verdicts.tsv")).unwrap_or_default();
    for line in table.lines() {
        let (file, verdict) = line.split_once('\t').expect("a file, a tab, a verdict");
        found.push((folder.join("register").join(file), verdict == "linearizable"));
    }
    for entry in std::fs::read_dir(folder.join("append")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with("-ok") || name.ends_with("-bad"), "{name} tells no verdict");
        found.push((path, name.ends_with("-ok")));
    }
    found
}

/// Run by CI where the folder exists: `CORACLE_HISTORIES=DIR cargo test ... -- --ignored`.
#[test]
#[ignore = "needs CORACLE_HISTORIES"]
fn published_histories_get_the_verdict_they_were_published_with() {
    let folder = std::env::var_os("CORACLE_HISTORIES").expect("CORACLE_HISTORIES names a folder");
    let histories = published(Path::new(&folder));
    assert!(!histories.is_empty(), "{} holds no histories", folder.display());
    let mut slowest = (std::time::Duration::ZERO, PathBuf::new());
    for (path, linearizable) in &histories {
        let text = std::fs::read_to_string(path).unwrap();
        let start = std::time::Instant::now();
        match check_text(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            Verdict::Linearizable => assert!(linearizable, "{}", path.display()),
            Verdict::NotLinearizable(why) => assert!(!linearizable, "{}: {why}", path.display()),
            Verdict::Undecided => panic!("{} is undecided", path.display()),
        }
        slowest = slowest.max((start.elapsed(), path.clone()));
    }
    println!("{} histories; the slowest took {:?}: {}", histories.len(), slowest.0, slowest.1.display());
}
