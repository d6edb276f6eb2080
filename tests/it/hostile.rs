//! Guests that break the contract, against the engine itself: each ends in its own error, and the host goes on. A mode of the guest without an arm
//! in `expected` does not compile.

#[path = "../guests/hostile/src/modes.rs"]
mod modes;

use crate::guests;
use millstream::column::{Column, ColumnBuilder, Strings, Type};
use millstream::plugin::describe::{Description, Request};
use millstream::plugin::engine::Engine;
use millstream::plugin::{
    CallError, DescribeError, Found, Input, Instance, Leaves, Limits, Loader, Outcome, Page, Plugin, Services, Verdict,
};
use modes::Mode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MEMORY: usize = 16 << 20;
/// Enough for everything that does not loop, however slow the machine.
const CPU: Duration = Duration::from_millis(500);

fn plugin() -> Arc<dyn Plugin> {
    Engine::new().unwrap().load(guests::hostile()).unwrap()
}

fn request(mode: Mode) -> Request {
    serde_json::from_value(serde_json::json!({
        "config": { "mode": mode.name() },
        "input": { "fields": [{ "path": "a", "type": "text" }, { "path": "n", "type": "int" }], "open": true },
        "tables": { "users": { "fields": [{ "path": "id", "type": "int" }] } },
    }))
    .unwrap()
}

fn limits() -> Limits {
    Limits { cpu: CPU, memory: MEMORY }
}

fn instance(mode: Mode) -> Result<Box<dyn Instance>, CallError> {
    let request = request(mode);
    let description = plugin().describe(&request).unwrap();
    plugin().instantiate(&request, &description, limits())
}

/// Four rows; as many leaves as the guest thinks.
fn call(mode: Mode, instance: &mut dyn Instance, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
    let mut a = ColumnBuilder::new(Type::Text, 4);
    let mut n = ColumnBuilder::new(Type::Int, 4);
    let mut texts = Strings::default();
    for row in 0..4 {
        a.bytes(b"text");
        n.int(row);
        if row < 3 {
            texts.push(b"leaf");
        }
    }
    let leaves = Leaves { offsets: vec![0, 1, 2, 3, 3], paths: texts.clone(), values: texts, spans: vec![(0, 6); 3] };
    let (a, n) = (a.finish(), n.finish());
    let input = Input {
        rows: 4,
        stream_time: i64::MIN,
        timestamps: &[10, 20, 30, 40],
        fields: &[&a, &n],
        keys: None,
        values: None,
        headers: None,
        leaves: (mode != Mode::LeavesNotAsked).then_some(&leaves),
    };
    instance.call(&input, services)
}

/// Services that note what is asked of them, and refuse the key `refuse`.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

impl Noted {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

fn column(kind: Type, rows: usize) -> Column {
    let mut column = ColumnBuilder::new(kind, rows);
    (0..rows).for_each(|_| column.null());
    column.finish()
}

impl Services for Noted {
    fn get_many(&mut self, store: u32, keys: &Column) -> Result<Found, String> {
        if keys.bytes(0) == Some(b"refuse") {
            return Err("the store says no".to_owned());
        }
        self.note(format!("get {store}"));
        let present = millstream::column::Bitmap(vec![0b01]);
        Ok(Found { present, fields: vec![column(Type::Int, 2), column(Type::Text, 2)] })
    }

    fn put_many(&mut self, store: u32, keys: Column, fields: Vec<Column>) -> Result<(), String> {
        self.note(format!("put {store} {:?} {}", keys.bytes(0), fields.len()));
        Ok(())
    }

    fn delete_many(&mut self, store: u32, keys: Column) -> Result<(), String> {
        self.note(format!("delete {store} {:?}", keys.bytes(0)));
        Ok(())
    }

    fn scan(&mut self, store: u32, low: &Column, high: &Column, limit: u32) -> Result<Page, String> {
        self.note(format!("scan {store} {:?} {:?} {limit}", low.bytes(0), high.bytes(0)));
        Ok(Page { keys: column(Type::Text, 0), fields: vec![column(Type::Int, 0), column(Type::Text, 0)], more: false })
    }

    fn lookup(&mut self, table: u32, rows: &[u32], _: &Column) -> Result<Found, String> {
        self.note(format!("lookup {table} {rows:?}"));
        Ok(Found { present: millstream::column::Bitmap(vec![0]), fields: vec![column(Type::Int, 2)] })
    }

    fn log(&mut self, level: u8, row: Option<u32>, message: &str) {
        self.note(format!("log {level} {row:?} {message}"));
    }
}

/// How a mode ends.
enum Ends {
    Well,
    /// Where, and with an error whose text holds this.
    InDescribe(&'static str),
    InInit(&'static str),
    InCall(&'static str),
    /// With a rule that was broken: output, field, row and the like are in the text.
    Malformed(&'static str),
}

fn expected(mode: Mode) -> Ends {
    use Ends::*;
    match mode {
        Mode::Identity | Mode::Half | Mode::Echo | Mode::Good | Mode::State | Mode::Log => Well,
        Mode::EndlessLoop => InCall("used up its CPU budget of 500ms"),
        Mode::MemoryHog => InCall("more than its 16777216 bytes"),
        Mode::Unreachable => InCall("trapped: wasm `unreachable`"),
        Mode::Panic => InCall("panicked: out of cheese at "),
        Mode::Recursion | Mode::RecursionWithFrames => InCall("recursion is too deep"),
        Mode::WildPointer => InCall("trapped: out of bounds memory access"),
        Mode::FailProcess => InCall("gave up: no more"),
        Mode::FailInit => InInit("gave up: no such list"),
        Mode::PanicInit => InInit("panicked: in init at "),
        Mode::LoopInit => InInit("CPU budget"),
        Mode::StateInInit => InInit("state can be used only while a batch is processed"),
        Mode::LoopDescribe => InDescribe("CPU budget"),
        Mode::MemoryDescribe => InDescribe("bytes of memory"),
        Mode::GarbageDescribe => InDescribe("describe-answer.schema.json"),
        Mode::EmptyDescribe => InDescribe("no output is described"),
        Mode::TwoOutputsOfAName => InDescribe("two outputs with the name `out`"),
        Mode::UnknownTable => InDescribe("table `nobody`"),
        Mode::FloatKeys => InDescribe("keys of store `` are float"),
        Mode::StateInDescribe => InDescribe("state can be used only while a batch is processed"),
        Mode::MistakesDescribe => InDescribe("the configuration has mistakes"),
        Mode::NoMistakes => InDescribe("failed without a mistake"),
        Mode::UnknownStore => InCall("store 1 is used, 1 are described"),
        Mode::KeysOfAnotherType => InCall("store 0, keys: the column holds int, expected is text"),
        Mode::NullKey => InCall("store 0, keys: row 0 is null"),
        Mode::TooFewFields => InCall("a row of store 0 has 2 fields, 1 are given"),
        Mode::FieldOfAnotherType => InCall("store 0, field `count`: the column holds text, expected is int"),
        Mode::FieldTooShort => InCall("store 0, field `count`: 1 entries for 2 rows"),
        Mode::NullField => InCall("store 0, field `count`: row 0 is null"),
        Mode::ScanWithTwoKeys => InCall("store 0, keys: 3 offsets, 1 rows need 2"),
        Mode::TextKeysNotUtf8 => InCall("store 0, keys: row 0 is not UTF-8"),
        Mode::TableUnknown => InCall("table 1 is used, 1 are described"),
        Mode::TableRowOutOfRange => InCall("table 0 is asked for row 4, the batch has 4 rows"),
        Mode::TableLengths => InCall("table 0, keys: 2 offsets, 2 rows need 3"),
        Mode::Refused => InCall("trapped: the store says no"),
        Mode::ReasonNotUtf8 => Malformed("utf-8"),
        Mode::ManyLongReasons => Malformed("fuel"),
        Mode::SelectFalls | Mode::SelectRepeats => Malformed("select: the rows are not strictly increasing"),
        Mode::SelectOutOfRange => Malformed("select: row 4 is out of range"),
        Mode::SelectRejected => Malformed("select: row 1 is rejected too"),
        Mode::RejectOutOfRange => Malformed("row 4 is rejected, the batch has 4 rows"),
        Mode::RejectTwice => Malformed("row 1 is rejected twice"),
        Mode::OutputUnknown => Malformed("derive names output 2, 2 are described"),
        Mode::OutputTwice => Malformed("derive names output `out` twice"),
        Mode::SourceFalls => Malformed("output `out`, source: the rows fall"),
        Mode::SourceOutOfRange => Malformed("output `out`, source: row 4 is out of range"),
        Mode::SourceRejected => Malformed("output `out`, source: row 3 is rejected too"),
        Mode::FromNoneInExtend => Malformed("output `out`, source: rows from none need an output whose base is `replace`"),
        Mode::FromNoneWithoutKeys | Mode::FromNoneWithoutTimestamps => {
            Malformed("output `new`, source: rows from none need keys and timestamps")
        }
        Mode::FieldsMissing => Malformed("output `out`: it gives 1 fields, 2 are described"),
        Mode::FieldsTooMany => Malformed("output `out`: it gives 3 fields, 2 are described"),
        Mode::FieldTypeWrong => Malformed("output `out`, field `x`: the column holds float, expected is int"),
        Mode::IntsTooFew => Malformed("output `out`, field `x`: 2 entries for 3 rows"),
        Mode::IntsTooMany => Malformed("output `out`, field `x`: 4 entries for 3 rows"),
        Mode::FloatNan => Malformed("output `new`, field `f`: row 1 is not a finite number"),
        Mode::FloatInfinite => Malformed("output `new`, field `f`: row 2 is not a finite number"),
        Mode::BoolsTooShort => Malformed("output `new`, field `b`: 0 bytes of booleans, 3 rows need 1"),
        Mode::OffsetsTooFew => Malformed("output `out`, field `t`: 3 offsets, 3 rows need 4"),
        Mode::OffsetsEmpty => Malformed("output `out`, field `t`: 0 offsets, 3 rows need 4"),
        Mode::OffsetsNotFromZero => Malformed("output `out`, field `t`: the offsets do not begin with 0"),
        Mode::OffsetsFall => Malformed("output `out`, field `t`: the offsets fall"),
        Mode::OffsetsBeyondData | Mode::OffsetsBeforeEnd => {
            Malformed("output `out`, field `t`: the last offset is not the end of the data")
        }
        Mode::TextNotUtf8 | Mode::TextCutsCharacter => Malformed("output `out`, field `t`: row 1 is not UTF-8"),
        Mode::JsonInvalid | Mode::JsonInjects => Malformed("output `new`, field `j`: row 1 is not a JSON value"),
        Mode::JsonNull => Malformed("output `new`, field `j`: row 1 is the text `null`"),
        Mode::JsonTooDeep => Malformed("output `new`, field `j`: row 1 is nested deeper than 128"),
        Mode::JsonNotUtf8 => Malformed("output `new`, field `j`: row 1 is not UTF-8"),
        Mode::ValidityTooShort => Malformed("output `out`, field `t`: validity: 1 bytes of marks, 9 rows need 2"),
        Mode::ValidityTooLong => Malformed("output `out`, field `t`: validity: 2 bytes of marks, 3 rows need 1"),
        Mode::KeptTooShort => Malformed("output `out`, field `t`: kept: 1 bytes"),
        Mode::KeptInReplace => Malformed("output `new`, field `f`: rows are kept"),
        Mode::RemovedTooLong => Malformed("output `out`, field `x`: removed: 2 bytes"),
        Mode::NullNeverNull => Malformed("output `out`, field `x`: row 1 is null"),
        Mode::TombstonesTooLong => Malformed("output `out`, tombstones: 2 bytes"),
        Mode::TimestampsTooFew => Malformed("output `new`, timestamps: 1 entries for 3 rows"),
        Mode::KeysOfText => Malformed("output `new`, keys: the column holds text, expected is bytes"),
        Mode::KeysTooFew => Malformed("output `new`, keys: 3 offsets"),
        Mode::ValuesWithFields => Malformed("output `new`: it gives values together with fields or leaves"),
        Mode::ValuesOfText => Malformed("output `new`, values: the column holds text"),
        Mode::ValuesTooMany => Malformed("output `new`, values: 5 offsets"),
        Mode::HeadersTooFew => Malformed("output `out`, headers: 3 offsets, 3 rows need 4"),
        Mode::HeadersFall => Malformed("output `out`, headers: the offsets fall"),
        Mode::HeaderNamesTooFew => Malformed("output `out`, headers: names: 2 offsets, 2 rows need 3"),
        Mode::HeaderValuesTooFew => Malformed("output `out`, headers: values: 2 offsets"),
        Mode::HeaderValuesOfText => Malformed("output `out`, headers: values: the column holds text"),
        Mode::LeavesNotAsked => Malformed("output `out`, leaves: leaves were not asked for"),
        Mode::LeavesInReplace => Malformed("output `new`, leaves: the output's base is not `extend`"),
        Mode::LeavesOfRepeatedRow => Malformed("output `out`, leaves: a source row is named twice"),
        Mode::LeavesFall | Mode::LeavesRepeat => Malformed("output `out`, leaves: the entries are not strictly increasing"),
        Mode::LeavesOutOfRange => Malformed("output `out`, leaves: entry 3 is out of range"),
        Mode::LeavesTooFew => Malformed("output `out`, leaves: 2 offsets, 2 rows need 3"),
        Mode::LeavesNotUtf8 => Malformed("output `out`, leaves: row 0 is not UTF-8"),
    }
}

/// Runs a mode to its end: the error and where it came.
fn end(mode: Mode) -> (&'static str, Result<Verdict, CallError>) {
    let request = request(mode);
    let description: Description = match plugin().describe(&request) {
        Ok(description) => description,
        Err(DescribeError::Call(error)) => return ("describe", Err(error)),
        Err(error @ DescribeError::Mistakes(_)) => return ("describe", Err(CallError::Failed(error.to_string()))),
    };
    let mut instance = match plugin().instantiate(&request, &description, limits()) {
        Ok(instance) => instance,
        Err(error) => return ("init", Err(error)),
    };
    let noted = Noted::default();
    let mut services: Box<dyn Services> = Box::new(noted.clone());
    let answer = call(mode, &mut *instance, &mut services);
    // Lent, not given: whatever the guest did, they are back.
    services.log(0, None, "mine again");
    assert_eq!(noted.0.lock().unwrap().last().map(String::as_str), Some("log 0 None mine again"), "{mode:?}");
    if answer.is_err() {
        let again = call(mode, &mut *instance, &mut services).expect_err("a failed instance cannot be used").to_string();
        assert!(again.contains("an earlier call failed"), "{mode:?}: {again}");
    }
    ("call", answer)
}

#[test]
fn every_mode_ends_as_it_should() {
    for mode in Mode::ALL {
        let (place, answer) = end(*mode);
        let ends = |at: &str, text: &str| {
            let error = answer.as_ref().expect_err(mode.name()).to_string();
            assert!(place == at && error.contains(text), "{mode:?} ends in {place}: {error}");
        };
        match expected(*mode) {
            Ends::Well => drop(answer.unwrap_or_else(|error| panic!("{mode:?}: {error}"))),
            Ends::InDescribe(text) => ends("describe", text),
            Ends::InInit(text) => ends("init", text),
            Ends::InCall(text) => ends("call", text),
            Ends::Malformed(text) => {
                ends("call", text);
                assert!(matches!(answer, Err(CallError::Malformed(_))), "{mode:?}: {answer:?}");
            }
        }
    }
}

#[test]
fn what_fails_is_of_its_kind() {
    let failed = |mode| end(mode).1.unwrap_err();
    assert_eq!(failed(Mode::EndlessLoop), CallError::OutOfTime(CPU));
    assert_eq!(failed(Mode::MemoryHog), CallError::OutOfMemory(MEMORY));
    assert_eq!(failed(Mode::Recursion), CallError::StackOverflow);
    assert_eq!(failed(Mode::FailProcess), CallError::Failed("no more".to_owned()));
    let panicked = failed(Mode::Panic);
    assert!(matches!(&panicked, CallError::Panicked { message, row: Some(2) } if message.contains("guest.rs:")), "{panicked:?}");
    let Err(DescribeError::Mistakes(mistakes)) = plugin().describe(&request(Mode::MistakesDescribe)) else { panic!("it has mistakes") };
    assert_eq!((mistakes[0].at.as_str(), mistakes[0].proposal.as_deref()), ("/mode", Some("Identity")));
}

#[test]
fn good_guests_get_their_answers_through() {
    let answer = |mode| end(mode).1.unwrap();
    assert_eq!(answer(Mode::Identity).outcome, Outcome::All);
    assert_eq!(answer(Mode::Half).outcome, Outcome::Select(vec![0, 2]));
    let Outcome::Derive(echo) = answer(Mode::Echo).outcome else { panic!("it derives") };
    assert_eq!(echo[0].fields[0].column.values, millstream::column::Values::Ints(vec![0, 1, 2, 3]));
    assert_eq!(echo[0].fields[1].column.bytes(3), Some(b"text".as_slice()));
    let good = answer(Mode::Good);
    let Outcome::Derive(outputs) = good.outcome else { panic!("it derives") };
    assert_eq!((outputs[0].source.as_slice(), outputs[1].source.as_slice()), ([0, 1, 2].as_slice(), [0, 0, u32::MAX].as_slice()));
    assert_eq!(outputs[0].fields[1].column.bytes(2), Some("€".as_bytes()));
    assert_eq!((good.rejects[0].row, good.rejects[0].reason.as_str()), (3, "not this one"));
}

#[test]
fn services_are_called_as_the_guest_asks() {
    for (mode, wanted) in [
        (Mode::State, vec!["put 0 Some([97]) 2", "delete 0 Some([98])", "get 0", "scan 0 Some([97]) Some([122]) 10", "lookup 0 [0, 3]"]),
        (Mode::Log, vec!["log 2 Some(1) about row 1", "log 4 None about none", "log 3 None about a row that is not there"]),
    ] {
        let noted = Noted::default();
        let mut services: Box<dyn Services> = Box::new(noted.clone());
        call(mode, &mut *instance(mode).unwrap(), &mut services).unwrap();
        assert_eq!(*noted.0.lock().unwrap(), wanted, "{mode:?}");
    }
}

#[test]
fn a_thread_with_a_small_stack_survives_recursion() {
    let deep = || std::thread::Builder::new().stack_size(1 << 20).spawn(|| end(Mode::Recursion).1.unwrap_err()).unwrap().join().unwrap();
    assert_eq!(deep(), CallError::StackOverflow);
}

/// Takes its time without using the CPU.
struct Slow;

impl Services for Slow {
    fn get_many(&mut self, _: u32, _: &Column) -> Result<Found, String> {
        Err("unused".to_owned())
    }
    fn put_many(&mut self, _: u32, _: Column, _: Vec<Column>) -> Result<(), String> {
        Err("unused".to_owned())
    }
    fn delete_many(&mut self, _: u32, _: Column) -> Result<(), String> {
        Err("unused".to_owned())
    }
    fn scan(&mut self, _: u32, _: &Column, _: &Column, _: u32) -> Result<Page, String> {
        Err("unused".to_owned())
    }
    fn lookup(&mut self, _: u32, _: &[u32], _: &Column) -> Result<Found, String> {
        Err("unused".to_owned())
    }
    fn log(&mut self, _: u8, _: Option<u32>, _: &str) {
        std::thread::sleep(CPU / 2);
    }
}

#[test]
fn time_in_which_the_guest_did_not_run_is_not_its_fault() {
    let mut services: Box<dyn Services> = Box::new(Slow);
    let started = std::time::Instant::now();
    call(Mode::Log, &mut *instance(Mode::Log).unwrap(), &mut services).unwrap();
    assert!(started.elapsed() > CPU, "the test says nothing: the guest was faster than its budget");
}

#[test]
fn many_instances_live_at_the_same_time() {
    let mut instances: Vec<_> = (0..200).map(|_| instance(Mode::Half).unwrap()).collect();
    for instance in &mut instances {
        let mut services: Box<dyn Services> = Box::new(Noted::default());
        assert_eq!(call(Mode::Half, &mut **instance, &mut services).unwrap().outcome, Outcome::Select(vec![0, 2]));
    }
}

/// The pool reserves terabytes of addresses. Where that is forbidden, the same instances are made without it.
#[test]
fn a_limit_on_virtual_memory_does_not_matter() {
    guests::hostile();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 4000000 && exec \"$0\" --exact hostile::many_instances_live_at_the_same_time"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

/// A component of nothing but names: instances without members, imported and exported.
fn hand_made(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    fn section(component: &mut Vec<u8>, id: u8, entries: &[Vec<u8>]) {
        let body: Vec<u8> = std::iter::once(entries.len() as u8).chain(entries.concat()).collect();
        component.extend([id, body.len() as u8]);
        component.extend(body);
    }
    let name = |name: &&str| [vec![0, name.len() as u8], name.as_bytes().to_vec()].concat();
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(&mut component, 7, &[vec![0x42, 0]]);
    section(&mut component, 10, &imports.iter().map(|import| [name(import), vec![5, 0]].concat()).collect::<Vec<_>>());
    section(&mut component, 5, &[vec![1, 0]]);
    let instance = imports.len() as u8;
    section(&mut component, 11, &exports.iter().map(|export| [name(export), vec![5, instance, 0]].concat()).collect::<Vec<_>>());
    component
}

fn refusal(component: &[u8]) -> String {
    match Engine::new().unwrap().load(component) {
        Ok(_) => panic!("it is no plugin"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn what_is_no_plugin_is_refused_by_name() {
    let transform = "millstream:plugin/transform@1.0.0";
    let core = b"\0asm\x01\0\0\0";
    let cut = &guests::hostile()[..guests::hostile().len() / 2];
    for (component, wanted) in [
        (b"pipeline: ratings".to_vec(), vec!["no WebAssembly", "millstream build"]),
        (core.to_vec(), vec!["core WebAssembly module", "millstream build"]),
        (cut.to_vec(), vec!["no valid WebAssembly component"]),
        (hand_made(&[], &[]), vec!["does not export `millstream:plugin/transform`"]),
        (hand_made(&["wasi:clocks/wall-clock@0.2.0"], &[transform]), vec!["`wasi:clocks/wall-clock@0.2.0`", "wasm32-unknown-unknown"]),
        (hand_made(&["acme:net/http@1.0.0"], &[transform]), vec!["`acme:net/http@1.0.0`", "nobody offers"]),
        (hand_made(&["millstream:plugin/clocks@1.0.4"], &[transform]), vec!["`clocks`", "does not offer"]),
        // One interface of a version that is not served is enough.
        (hand_made(&["millstream:plugin/state@1.1.0"], &[transform]), vec!["version 1.1.0", "knows 1.0", "newer host"]),
        (hand_made(&["millstream:plugin/state"], &[transform]), vec!["names ``", "serves 1.0"]),
        (hand_made(&[], &[transform]), vec!["does not fit the plugin contract"]),
    ] {
        let refusal = refusal(&component);
        for text in wanted {
            assert!(refusal.contains(text), "{text} is not in: {refusal}");
        }
    }
}

#[test]
fn imports_are_read_from_the_bytes() {
    assert_eq!(plugin().imports(), ["state", "tables", "log"]);
    assert_eq!(plugin().about().name, "hostile");
}

#[test]
fn a_component_is_compiled_once() {
    assert!(Arc::ptr_eq(&plugin(), &plugin()));
}
