//! Files: what a guest does in the directory granted to it, and that nothing leads out.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use vmm::{Grant, GrantMode, Limits};

use crate::harness::{Boot, Finished, Seen, boot, guest, probe, vmm, vmm_binary, vmm_run};

/// A directory to be granted, beside things that nobody has granted:
///
/// ```text
/// ├ granted
/// │ ├ file        "inside"
/// │ └ folder/file "inside"
/// └ outside/file  "secret"
/// ```
struct Tree {
    root: TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().expect("a directory") };
        for folder in ["granted", "granted/folder", "outside"] {
            fs::create_dir(tree.root.path().join(folder)).expect("writable");
        }
        fs::write(tree.inside("file"), "inside").expect("writable");
        fs::write(tree.inside("folder/file"), "inside").expect("writable");
        fs::write(tree.outside("file"), "secret").expect("writable");
        tree
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.path().join("granted").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.root.path().join("outside").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.inside(path)).expect("a file of text")
    }

    fn grant(&self) -> Grant {
        Grant { path: self.inside(""), mode: GrantMode::ReadWrite, limits: Limits::default() }
    }

    /// Runs `steps` (see the probe) with the directory granted for reading and writing. Gives a line a step.
    fn steps(&self, steps: &[&str]) -> Vec<String> {
        steps_with(Some(self.grant()), steps)
    }

    #[track_caller]
    fn nothing_outside_has_changed(&self) {
        assert_eq!(fs::read_to_string(self.outside("file")).expect("still there"), "secret");
        assert_eq!(names_in(&self.outside("")), ["file"]);
        assert_eq!(names_in(self.root.path()), ["granted", "outside"]);
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn granting(guest: Boot, grant: Grant) -> Finished {
    guest.with(|config| config.directory = Some(grant)).run()
}

fn steps_with(grant: Option<Grant>, steps: &[&str]) -> Vec<String> {
    let arguments = [&["files"], steps].concat();
    let finished = boot("probe").arguments(&arguments).with(|config| config.directory = grant).run();
    finished.succeeded().lines().map(str::to_owned).collect()
}

#[test]
fn a_hundred_mib_go_in_and_out_unchanged_in_a_few_hundred_exits() {
    const SIZE: usize = 100 << 20;
    let tree = Tree::new();
    let urandom = fs::File::open("/dev/urandom").expect("random bytes");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(urandom, SIZE as u64), &mut bytes).expect("random");
    fs::write(tree.inside("input"), &bytes).expect("room on the disk");

    let finished = granting(probe("copy-file input output"), tree.grant());

    assert!(finished.report.exits.hypercall < 300, "{:?}", finished.report.exits);
    finished.succeeded();
    let copied = fs::read(tree.inside("output")).expect("the guest has written it");
    assert_eq!(copied.len(), SIZE);
    assert!(copied == bytes, "every byte is the same");
}

#[test]
fn programs_read_and_write_as_they_would_with_std() {
    let console = granting(probe("files-like-std"), Tree::new().grant()).succeeded();
    assert_eq!(
        console,
        "at 18\n\
         Ok(\"line\"), then Err(UnexpectedEnd)\n\
         18 bytes\n\
         Err(Host(NotFound))\n\
         0 bytes\n"
    );
}

#[test]
fn handles_are_the_numbers_that_students_know() {
    let tree = Tree::new();
    let said = tree.steps(&["open=r:file", "open=r:folder/file", "use=3", "close", "open=d:folder", "close"]);
    assert_eq!(said, ["Ok(3)", "Ok(4)", "Ok(0)", "Ok(3)", "Ok(0)"]);
    let said = tree.steps(&["close", "use=4294967295", "close", "read=1", "write=x", "seek=start:0"]);
    assert!(said.iter().all(|line| line == "Err(BadHandle)"), "{said:?}");
}

#[test]
fn positions_move_with_reads_writes_and_seeks() {
    let tree = Tree::new();
    let said = tree.steps(&[
        "open=rw:file",
        "read=2",
        "write=SI",
        "seek=current:0",
        "seek=current:-3",
        "read=64",
        "read=64",
        "seek=end:-1",
        "seek=start:3",
        "seek=end:3",
        "write=far",
        "seek=start:-1",
        "seek=end:-100",
    ]);
    assert_eq!(
        said,
        [
            "Ok(3)",
            "Ok(\"in\")",
            "Ok(2)",
            "Ok(4)",
            "Ok(1)",
            "Ok(\"nSIde\")",
            "Ok(\"\")",
            "Ok(5)",
            "Ok(3)",
            "Ok(9)",
            "Ok(3)",
            "Err(BadArgument)",
            "Err(BadArgument)",
        ]
    );
    assert_eq!(tree.read("file"), "inSIde\0\0\0far");
}

#[test]
fn a_file_is_appended_to_emptied_or_made_as_the_flags_say() {
    let tree = Tree::new();
    for (step, said, left) in [
        ("open=a:file", "Ok(3)", "inside+"),
        ("open=w:file", "Ok(3)", "+nside+"),
        ("open=wt:file", "Ok(3)", "+"),
        ("open=wc:file", "Ok(3)", "+"),
        ("open=wn:file", "Err(AlreadyExists)", "+"),
        ("open=r:file", "Ok(3)", "+"),
        ("open=w:new", "Err(NotFound)", "+"),
        ("open=w:folder/no/new", "Err(NotFound)", "+"),
        ("open=wc:folder/no/new", "Err(NotFound)", "+"),
        ("open=wn:folder/new", "Ok(3)", "+"),
        ("open=rt:file", "Err(BadArgument)", "+"),
        ("open=:file", "Err(BadArgument)", "+"),
        ("open=dr:folder", "Err(BadArgument)", "+"),
        ("open=r:folder", "Err(IsADirectory)", "+"),
        ("open=wc:folder", "Err(IsADirectory)", "+"),
        ("open=d:file", "Err(NotADirectory)", "+"),
        ("open=r:file/file", "Err(NotADirectory)", "+"),
    ] {
        assert_eq!(tree.steps(&[step, "seek=start:0", "write=+"])[0], said, "{step}");
        assert_eq!(tree.read("file"), left, "{step}");
    }
    assert_eq!(tree.read("folder/new"), "+");
}

#[test]
fn stat_and_remove_say_what_was_there() {
    let tree = Tree::new();
    symlink("file", tree.inside("link")).expect("writable");
    let steps = ["stat=link", "stat=folder", "stat=no", "remove=folder", "remove=no", "remove=link"];
    let said = tree.steps(&[&steps[..], &["stat=file", "remove=file", "stat=file"]].concat());
    assert_eq!(
        said,
        [
            "file of 6",
            "directory",
            "Err(Host(NotFound))",
            "Err(Host(IsADirectory))",
            "Err(Host(NotFound))",
            "Ok(())",
            "file of 6",
            "Ok(())",
            "Err(Host(NotFound))",
        ]
    );
    assert_eq!(names_in(&tree.inside("")), ["folder"]);
}

#[test]
fn a_thousand_names_are_all_listed() {
    let tree = Tree::new();
    let mut expected: Vec<_> = (0..1000).map(|number| format!("name-{number}")).collect();
    for name in &expected {
        fs::write(tree.inside("folder").join(name), "").expect("writable");
    }
    fs::create_dir(tree.inside("folder/below")).expect("writable");
    expected.extend(["below/".to_owned(), "file".to_owned()]);
    expected.sort();

    let console = granting(probe("list-directory folder"), tree.grant()).succeeded();

    let mut names: Vec<_> = console.lines().collect();
    names.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn without_a_grant_there_are_no_files() {
    let steps = ["open=r:file", "open=d:.", "stat=file", "remove=file", "read=1", "write=x", "close"];
    for line in steps_with(None, &steps) {
        assert!(line == "Err(NotGranted)" || line == "Err(Host(NotGranted))", "{line}");
    }
}

#[test]
fn a_read_only_grant_reads_only() {
    let tree = Tree::new();
    let grant = Grant { mode: GrantMode::ReadOnly, ..tree.grant() };
    let refused = ["open=w:file", "open=a:file", "open=rwt:file", "open=wc:new", "open=wn:new"];
    assert_eq!(steps_with(Some(grant.clone()), &refused), ["Err(NotGranted)"; 5]);
    let said = steps_with(Some(grant), &["remove=file", "open=r:file", "write=x", "read=64"]);
    assert_eq!(said, ["Err(Host(NotGranted))", "Ok(3)", "Err(BadHandle)", "Ok(\"inside\")"]);
    assert_eq!(names_in(&tree.inside("")), ["file", "folder"]);
    assert_eq!(tree.read("file"), "inside");
}

#[test]
fn no_more_is_opened_written_or_made_than_the_grant_allows() {
    let tree = Tree::new();
    let limits = Limits { open_files: 2, written_bytes: 10, made_files: 1 };
    let said = steps_with(
        Some(Grant { limits, ..tree.grant() }),
        &[
            "open=rw:file",
            "open=d:.",
            "open=r:file",
            "close",
            "open=wc:new",
            "open=wt:file",
            "use=3",
            "write=0123",
            "seek=start:1000000000000",
            "write=x",
            "use=4",
            "write=456789abc",
            "write=d",
            "close",
            "open=wc:newer",
        ],
    );
    assert_eq!(
        said,
        [
            "Ok(3)",
            "Ok(4)",
            "Err(TooManyOpenFiles)",
            "Ok(0)",
            "Ok(4)",
            "Err(TooManyOpenFiles)",
            "Ok(4)",
            "Ok(1000000000000)",
            "Err(NoSpace)",
            "Ok(6)",
            "Err(NoSpace)",
            "Ok(0)",
            "Err(NoSpace)",
        ]
    );
    assert_eq!((tree.read("file"), tree.read("new")), ("0123de".to_owned(), "456789".to_owned()));
    assert_eq!(names_in(&tree.inside("")), ["file", "folder", "new"]);
}

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

#[test]
fn addresses_that_are_not_what_they_seem_move_nothing() {
    let tree = Tree::new();

    let console = granting(probe("bad-buffers"), tree.grant()).succeeded();

    let bad = "Err(BadAddress)";
    let large = "Err(TooLarge)";
    let expected = [
        format!("null: {bad} {bad} {bad} {bad}"),
        format!("end not mapped: {bad} {bad} {bad} {bad}"),
        format!("middle not mapped: {bad} {bad} {bad} {large}"),
        format!("behind RAM: {bad} {bad} {bad} {bad}"),
        format!("not canonical: {bad} {bad} {bad} {bad}"),
        format!("wrapping: {bad} {bad} {bad} {bad}"),
        format!("larger than RAM: {large} {large} {large} {large}"),
        format!("endless: {large} {large} {large} {large}"),
        format!("not writable: {bad} {bad} {bad}"),
        "read me only, at Ok(0)".to_owned(),
    ];
    assert_eq!(console.lines().collect::<Vec<_>>(), expected);
    assert_eq!(tree.read("file"), "inside");
}

#[test]
fn the_command_line_grants_a_directory_with_its_limits() {
    let tree = Tree::new();
    let path = tree.inside("").display().to_string();
    let steps = ["--", "files", "open=rw:file", "write=0123456789", "open=r:file"];

    let run = |options: &[&str]| vmm_run("probe", &[options, &steps].concat());
    let seen = run(&["--dir", &format!("{path}:rw"), "--dir-limit", "4", "--dir-files", "1"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "Ok(3)\nOk(4)\nErr(TooManyOpenFiles)\n"));
    assert_eq!(tree.read("file"), "0123de");
    let seen = run(&["--dir", &path]);
    assert_eq!(seen.stdout, "Err(NotGranted)\nErr(BadHandle)\nOk(3)\n", "for reading only unless said");
}

#[test]
fn a_directory_that_cannot_be_granted_is_named() {
    let seen = vmm_run("probe", &["--dir", "/no/such/directory:rw", "--", "return"]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("cannot open /no/such/directory for the guest"), "{seen:?}");
    let seen = vmm(&["run", "x", "--dir-limit", "1G"]);
    assert_eq!(seen.code, Some(2), "a limit of nothing: {seen:?}");
}

/// The host kills a program that writes behind `ulimit -f`, unless the program takes care.
#[test]
fn the_hosts_own_limit_of_file_sizes_ends_writing_and_not_the_vmm() {
    let tree = Tree::new();
    let script = "ulimit -f 1; exec \"$@\"";
    let seen = Seen::of(
        Command::new("bash")
            .args(["-c", script, "bash"])
            .args([vmm_binary().as_os_str(), "run".as_ref(), guest("probe").as_os_str()])
            .args(["--dir", &format!("{}:rw", tree.inside("").display())])
            .args(["--", "files", "open=rw:file", "seek=start:1022", "write=abc", "write=d"]),
    );
    assert_eq!(
        (seen.code, seen.stdout.as_str()),
        (Some(0), "Ok(3)\nOk(1022)\nOk(2)\nErr(NoSpace)\n"),
        "{seen:?}"
    );
}
