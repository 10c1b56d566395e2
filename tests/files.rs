//! Files: what a guest does in the directory granted to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use vmm::{Grant, GrantMode, Limits};

use crate::harness::granted::{Tree, granting, names_in, steps_with};
use crate::harness::{Seen, guest, probe, vmm, vmm_binary, vmm_run};

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
