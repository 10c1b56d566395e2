//! Escapes: nothing leads out of the directory that was granted, and nobody is fast enough.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm::{Grant, GrantMode, Limits};

use crate::harness::granted::{Tree, granting, steps_with};
use crate::harness::probe;

#[test]
fn nothing_leads_out_of_the_granted_directory() {
    let tree = Tree::new();
    let root = tree.root.path().display().to_string();
    for (link, target) in [
        ("absolute", format!("{root}/outside/file")),
        ("relative", "../outside/file".to_owned()),
        ("absolute-inside", format!("{root}/granted/file")),
        ("folder-out", "../outside".to_owned()),
        ("parent", "..".to_owned()),
        ("root", "/".to_owned()),
        ("proc-root", "/proc/self/root".to_owned()),
        ("proc-cwd", "/proc/self/cwd".to_owned()),
        ("proc-fd", "/proc/self/fd/0".to_owned()),
        ("chain", "folder/chain".to_owned()),
        ("folder/chain", "../chain-end".to_owned()),
        ("chain-end", "./folder/../folder-out/file".to_owned()),
        ("loop", "loop".to_owned()),
        ("dangling", "../outside/new".to_owned()),
    ] {
        symlink(target, tree.inside(link)).expect("writable");
    }
    let fifo = tree.inside("fifo");
    make_fifo(&fifo);
    let below = |path: &str| format!("{root}/{path}");

    let cases = [
        ("..", "NotPermitted"),
        ("../outside/file", "NotPermitted"),
        ("./../outside/file", "NotPermitted"),
        ("folder/../../outside/file", "NotPermitted"),
        ("folder/./.././../granted/file", "NotPermitted"),
        ("/", "NotPermitted"),
        ("/etc/passwd", "NotPermitted"),
        ("//etc/passwd", "NotPermitted"),
        (&below("outside/file"), "NotPermitted"),
        (&below("granted/file"), "NotPermitted"),
        ("/proc/self/fd/0", "NotPermitted"),
        ("/proc/self/root/etc/passwd", "NotPermitted"),
        ("/dev/zero", "NotPermitted"),
        ("absolute", "NotPermitted"),
        ("absolute-inside", "NotPermitted"),
        ("relative", "NotPermitted"),
        ("folder/../relative", "NotPermitted"),
        ("folder-out/file", "NotPermitted"),
        ("folder-out/../granted/file", "NotPermitted"),
        ("parent/outside/file", "NotPermitted"),
        ("parent/granted/file", "NotPermitted"),
        ("root/etc/passwd", "NotPermitted"),
        ("proc-root", "NotPermitted"),
        ("proc-root/etc/passwd", "NotPermitted"),
        ("proc-cwd/Cargo.toml", "NotPermitted"),
        ("proc-fd", "NotPermitted"),
        ("chain", "NotPermitted"),
        ("loop", "NotPermitted"),
        ("dangling", "NotPermitted"),
        ("fifo", "NotPermitted"),
    ];
    let ways = ["open=r:", "open=rw:", "open=wc:", "open=wct:", "open=a:", "stat="];
    let steps: Vec<String> =
        cases.iter().flat_map(|(path, _)| ways.map(|way| format!("{way}{path}"))).collect();
    let said = tree.steps(&steps.iter().map(String::as_str).collect::<Vec<_>>());

    assert_eq!(said.len(), steps.len(), "{said:?}");
    for ((step, said), (path, error)) in steps.iter().zip(&said).zip(cases.iter().flat_map(|case| [case; 6]))
    {
        let is_right = *said == format!("Err({error})") || *said == format!("Err(Host({error}))");
        assert!(is_right, "{step} ({path}): {said}");
    }
    tree.nothing_outside_has_changed();
}

#[test]
fn nothing_outside_is_listed_or_removed() {
    let tree = Tree::new();
    symlink("../outside", tree.inside("folder-out")).expect("writable");
    symlink("/proc/self/root", tree.inside("proc-root")).expect("writable");
    let outside = tree.outside("file").display().to_string();

    for path in ["..", "folder/../..", "/", "folder-out", "folder-out/.", "proc-root", "/proc/self/fd"] {
        assert_eq!(tree.steps(&[&format!("open=d:{path}")]), ["Err(NotPermitted)"], "{path}");
    }
    for path in ["../outside/file", "folder-out/file", "folder/../folder-out/file", &outside] {
        assert_eq!(tree.steps(&[&format!("remove={path}")]), ["Err(Host(NotPermitted))"], "{path}");
    }
    tree.nothing_outside_has_changed();

    // A link is a name inside; what it leads to is not touched.
    assert_eq!(tree.steps(&["remove=folder-out"]), ["Ok(())"]);
    tree.nothing_outside_has_changed();
}

#[test]
fn what_no_path_can_be_is_refused() {
    let tree = Tree::new();
    let longest = "./".repeat(2048);
    let too_long = format!("{longest}.");
    let long_name = "x".repeat(256);
    for (path, error) in
        [("", "BadText"), (&longest, "TooLarge"), (&too_long, "TooLarge"), (&long_name, "TooLarge")]
    {
        let said = tree.steps(&[&format!("open=wc:{path}"), &format!("stat={path}")]);
        assert_eq!(said, [format!("Err({error})"), format!("Err(Host({error}))")], "{path}");
    }
    assert_eq!(granting(probe("path-with-nul"), tree.grant()).succeeded(), "Err(BadArgument)\n");
}

#[test]
fn links_that_stay_inside_are_followed() {
    let tree = Tree::new();
    symlink("../file", tree.inside("folder/up")).expect("writable");
    symlink("folder", tree.inside("short")).expect("writable");
    let said = tree.steps(&["open=r:short/up", "read=64", "open=r:folder/../short/../file", "read=64"]);
    assert_eq!(said, ["Ok(3)", "Ok(\"inside\")", "Ok(4)", "Ok(\"inside\")"]);
}

#[test]
fn devices_and_the_doors_of_proc_stay_shut_even_where_they_are_granted() {
    for (path, steps) in [
        (
            "/dev",
            &["open=r:zero", "open=rw:null", "open=r:tty", "open=r:kvm", "open=r:fd/0", "stat=zero"][..],
        ),
        ("/proc", &["open=r:self/root/etc/passwd", "open=r:self/fd/0", "open=r:self/exe", "stat=self/cwd"]),
    ] {
        let limits = Limits::default();
        let grant = Grant { path: path.into(), mode: GrantMode::ReadWrite, limits };
        for (step, said) in steps.iter().zip(steps_with(Some(grant), steps)) {
            let refused = ["Err(NotPermitted)", "Err(Host(NotPermitted))", "Err(NotFound)"];
            assert!(refused.contains(&&*said), "{path} {step}: {said}");
        }
    }
}

/// Exchanges two names for as long as the guest runs.
fn while_exchanging(one: &Path, other: &Path, run: impl FnOnce() -> String) -> String {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Dropped also when the run fails its expectations.
        let _ends = SetWhenDropped(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exchange(one, other);
            }
        });
        run()
    })
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exchange(one: &Path, other: &Path) {
    let (one, other) = (c_path(one), c_path(other));
    // By number: musl, for which `cargo xtask test --kvm qemu` builds, has no renameat2().
    let (call, here) = (libc::SYS_renameat2, libc::AT_FDCWD);
    // SAFETY: Both are strings with a NUL that live for the length of the call.
    let result =
        unsafe { libc::syscall(call, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn make_fifo(path: &Path) {
    let path = c_path(path);
    // SAFETY: It is a string with a NUL that lives for the length of the call.
    let result = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// The numbers of `opened 1, strange 2, refused 3`, and that nothing else was said.
fn outcome(console: &str) -> [u32; 3] {
    let words: Vec<_> = console.trim_end().split(", ").collect();
    assert_eq!(words.len(), 3, "{console}");
    ["opened ", "strange ", "refused "].map(|word| {
        let numbers: Vec<_> = words.iter().filter_map(|part| part.strip_prefix(word)).collect();
        numbers[0].parse().expect("a number")
    })
}

#[test]
fn a_link_that_takes_the_place_of_a_directory_in_time_opens_no_secret() {
    // The second path has a `..`, for which the kernel may give up and cap-std walks by itself.
    for (path, times) in [("place/file", 2000), ("place/../place/file", 500)] {
        let tree = Tree::new();
        fs::create_dir(tree.inside("place")).expect("writable");
        fs::write(tree.inside("place/file"), "inside").expect("writable");
        symlink("../outside", tree.inside("link")).expect("writable");

        let console = while_exchanging(&tree.inside("place"), &tree.inside("link"), || {
            granting(probe(&format!("open-often r {path} {times}")), tree.grant()).succeeded()
        });

        let [opened, strange, refused] = outcome(&console);
        assert_eq!((opened + refused, strange), (times, 0), "{path}: {console}");
        assert!(opened > 0 && refused > 0, "the race was run: {path}: {console}");
        tree.nothing_outside_has_changed();
    }
}

#[test]
fn a_link_that_takes_the_place_of_a_file_in_time_opens_no_secret() {
    for flags in ["r", "rw", "wct"] {
        let tree = Tree::new();
        symlink("../outside/file", tree.inside("link")).expect("writable");

        let console = while_exchanging(&tree.inside("file"), &tree.inside("link"), || {
            granting(probe(&format!("open-often {flags} file 500")), tree.grant()).succeeded()
        });

        let [opened, strange, refused] = outcome(&console);
        assert_eq!((opened + refused, strange), (500, 0), "{flags}: {console}");
        assert!(opened > 0 && refused > 0, "the race was run: {flags}: {console}");
        tree.nothing_outside_has_changed();
    }
}

#[test]
fn nothing_is_made_outside_while_a_directory_becomes_a_link() {
    let tree = Tree::new();
    fs::create_dir(tree.inside("place")).expect("writable");
    symlink("../outside", tree.inside("link")).expect("writable");

    let console = while_exchanging(&tree.inside("place"), &tree.inside("link"), || {
        granting(probe("open-often wct place/new 500"), tree.grant()).succeeded()
    });

    let [opened, strange, refused] = outcome(&console);
    assert!(opened > 0 && refused > 0 && opened + refused == 500 && strange == 0, "{console}");
    tree.nothing_outside_has_changed();
}

#[test]
fn a_fifo_that_takes_the_place_of_a_file_in_time_stops_nobody() {
    let tree = Tree::new();
    make_fifo(&tree.inside("fifo"));
    for flags in ["r", "w"] {
        let console = while_exchanging(&tree.inside("file"), &tree.inside("fifo"), || {
            granting(probe(&format!("open-often {flags} file 500")), tree.grant()).succeeded()
        });
        let [opened, strange, refused] = outcome(&console);
        assert!(opened > 0 && refused > 0 && opened + refused == 500 && strange == 0, "{flags}: {console}");
    }
}
