//! The attributes in unusual places.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use eventpy::{EndReport, Event, EventDispatchManager, EventDispatcher};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Hello(String);

/// A dispatcher that says one thing and waits.
macro_rules! greeter {
    ($(#[$attribute:meta])* $dispatcher:ty, $greeter:ident => $greeting:expr) => {
        $(#[$attribute])*
        impl eventpy::EventDispatcher for $dispatcher {
            type Events = (Hello,);
            type State = ();

            fn init(&mut self) -> eventpy::Result<()> {
                Ok(())
            }

            fn update(
                &mut self,
                _: &mut (),
                emitter: &mut eventpy::Emitter<Self::Events>,
            ) -> eventpy::Result<()> {
                let $greeter = self;
                emitter.emit(Hello($greeting.to_string()))?;
                while emitter.wait(Duration::from_secs(60)) {}
                Ok(())
            }
        }
    };
}

/// Deploys it, and returns what it said and the report.
fn greeting_of<D: EventDispatcher>(dispatcher: D) -> eventpy::Result<(String, EndReport)> {
    let (said, heard) = std::sync::mpsc::channel();
    let mut manager = EventDispatchManager::new().dispatcher(dispatcher);
    manager.on(move |hello: &Hello| said.send(hello.0.clone()));
    manager.deploy_dispatchers()?;
    while manager.invoke_dispatch_timeout(Duration::from_secs(60))? == 0 {}
    Ok((heard.recv()?, manager.end_dispatchers()?))
}

#[derive(Serialize, Deserialize)]
struct Watch<T> {
    of: T,
}

#[derive(Serialize, Deserialize)]
struct Disk {
    number: u32,
}

greeter!(#[eventpy::dispatcher] Watch<Disk>, watch => format!("disk {}", watch.of.number));
greeter!(#[eventpy::dispatcher] Watch<String>, watch => watch.of);
greeter!(#[cfg(any())] #[eventpy::dispatcher] Watch<u8>, watch => watch.of);
greeter!(#[eventpy::dispatcher] #[cfg(any())] Watch<u16>, watch => watch.of);

#[eventpy::test]
fn a_generic_type_is_a_dispatcher_for_each_type_that_is_written_out() -> eventpy::Result<()> {
    let (greeting, report) = greeting_of(Watch { of: Disk { number: 3 } })?;
    assert_eq!(greeting, "disk 3");
    assert_eq!(report.dispatchers[0].dispatcher, "Watch<Disk>");
    let (greeting, report) = greeting_of(Watch { of: "text".to_owned() })?;
    assert_eq!(greeting, "text");
    assert_eq!(report.dispatchers[0].dispatcher, "Watch<String>");
    Ok(())
}

mod nested {
    use super::*;

    #[eventpy::test]
    fn a_test_in_a_module_finds_itself_again() -> eventpy::Result<()> {
        #[derive(Serialize, Deserialize)]
        struct Inside;
        greeter!(#[eventpy::dispatcher] Inside, _inside => "from inside a function");
        assert_eq!(greeting_of(Inside)?.0, "from inside a function");
        Ok(())
    }
}

#[eventpy::test]
#[should_panic = "the greeting is \"text\""]
fn a_test_that_should_panic_may_deploy() {
    let (greeting, _) = greeting_of(Watch { of: "text".to_owned() }).unwrap();
    panic!("the greeting is {greeting:?}");
}

#[eventpy::test]
#[ignore = "the test below asks for it"]
fn a_test_that_is_ignored_may_deploy() -> eventpy::Result<()> {
    assert_eq!(greeting_of(Watch { of: "text".to_owned() })?.0, "text");
    Ok(())
}

#[test]
fn a_test_that_is_ignored_passes_when_it_is_asked_for() {
    let output = std::process::Command::new("/proc/self/exe")
        .args(["a_test_that_is_ignored_may_deploy", "--exact", "--ignored"])
        .output()
        .expect("this program can be run again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn settings_that_can_not_be_encoded_are_an_error_at_once() {
    #[derive(Serialize, Deserialize)]
    struct Folder {
        path: PathBuf,
    }
    greeter!(#[eventpy::dispatcher] Folder, folder => folder.path.display());
    let folder = Folder { path: OsStr::from_bytes(b"\xff").into() };
    let error = EventDispatchManager::new().register_dispatcher(folder).unwrap_err();
    assert_eq!(error.kind(), eventpy::ErrorKind::Load);
    assert!(error.to_string().contains("dispatcher `Folder` can't be taken"), "{error}");
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}

#[eventpy::test]
fn settings_that_can_not_be_decoded_are_the_error_of_deploy() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
    }
    greeter!(#[eventpy::dispatcher] Either, _either => "nothing");
    let mut manager = EventDispatchManager::new().dispatcher(Either::Number(1));
    let error = manager.deploy_dispatchers().unwrap_err();
    assert_eq!(error.kind(), eventpy::ErrorKind::Load);
    assert!(error.to_string().contains("::Either` can't be loaded"), "{error}");
    assert!(error.to_string().contains("`untagged`"), "{error}");
}
