//! The page of `vmm run --report` in a real browser, as people see it and use it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::browser::{Browser, View};
use crate::harness::{Seen, guest, vmm_binary};
use crate::report::{data, report};

const DESK: View = View { width: 1200, height: 900, dark: false };
const PHONE: View = View { width: 360, height: 740, dark: true };

/// A page in a browser, and the file it is from.
struct Shown {
    browser: Browser,
    html: String,
    _folder: TempDir,
}

impl Shown {
    fn of(program: &str, words: &[&str], view: View) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("run.html");
        let (_, html) = report(&page, program, words);
        Self { browser: Browser::open(&page, view), html, _folder: folder }
    }

    #[track_caller]
    fn value(&mut self, expression: &str) -> Value {
        self.browser.value(expression)
    }

    /// Replaces what stands in the search box.
    #[track_caller]
    fn search(&mut self, text: &str) {
        self.value("(() => { query.value = ''; query.focus(); })()");
        self.browser.write(text);
        self.browser.wait_for("count.textContent !== ''");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.browser.complaints.is_empty(), "{:?}", self.browser.complaints);
        }
    }
}

#[test]
fn it_loads_without_an_error_and_shows_the_numbers_of_its_data() {
    let mut page = Shown::of("probe", &["--", "println-raw"], DESK);

    let data = data(&page.html);
    let shown = page.value(
        "[...document.querySelectorAll('#exits .bars:not(.lines) tbody tr')].map((row) => [row.children[0].textContent, \
         Number(row.children[1].textContent.replaceAll(',', ''))])",
    );
    let kinds = data["stats"]["kinds"].as_array().expect("kinds");
    assert!(!kinds.is_empty());
    let expected: Vec<_> = kinds.iter().map(|row| json!([row["kind"], row["exits"]])).collect();
    assert_eq!(shown, Value::from(expected));

    let places = page.value("document.querySelectorAll('#map tbody tr').length");
    assert_eq!(places, data["map"]["rows"].as_array().expect("rows").len());
    let marks = page.value("document.querySelectorAll('#time-strip .plot rect.box').length");
    assert!(marks.as_u64().is_some_and(|marks| marks > 3), "{marks}");
    let outside = "document.querySelectorAll('[src], link[href]:not([href^=\"data:\"]), a[href]:not([href^=\"#\"])').length";
    assert_eq!(page.value(outside), 0, "nothing leads out of the page");
}

#[test]
fn a_click_unfolds_a_table_and_the_buttons_all_of_them() {
    let mut page = Shown::of("01_hello", &[], DESK);
    // The only one of the last level: it starts folded.
    let table = "#tables details:not([open])";
    assert_eq!(page.value(&format!("document.querySelectorAll('{table}').length")), 1);
    page.value(&format!("document.querySelector('{table}').id = 'pt'"));
    let is_seen = "document.querySelector('#pt .leaf').checkVisibility()";
    assert_eq!(page.value(is_seen), false);

    page.browser.click("#pt > summary");
    page.browser.wait_for("pt.open");
    assert_eq!(page.value(is_seen), true);
    page.browser.click("#fold");
    page.browser.wait_for("document.querySelectorAll('#tables details[open]').length === 0");
    page.browser.click("#unfold");
    page.browser.wait_for("document.querySelectorAll('#tables details:not([open])').length === 0");
}

#[test]
fn an_address_is_looked_up() {
    let mut page = Shown::of("01_hello", &[], DESK);
    let entry = data(&page.html)["explain"]["start"]["rip"].as_str().expect("an address").to_owned();
    assert_eq!(page.value("found.hidden"), true);

    page.search(&entry);
    let found = page.value("found.textContent");
    let found = found.as_str().expect("text");
    let leads = format!("leads to GPA {entry}");
    for part in ["As a GPA", ".text", "As a GVA", &leads, "HVA 0x", "RIP at start"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    // Every table lies in RAM, and CR3 names the first.
    page.search("0x80008");
    page.browser.wait_for("found.textContent.includes('0x80008')");
    assert!(
        page.value("found.textContent").as_str().is_some_and(|text| text.contains("entry 1 of the table"))
    );
    page.search("0x_");
    page.search("0xdead_0000_beef_0000");
    page.browser.wait_for("found.textContent.includes('Nothing')");
}

#[test]
fn words_are_found_and_all_else_goes_away_until_the_box_is_empty() {
    let mut page = Shown::of("01_hello", &[], DESK);
    let rows = "[...document.querySelectorAll('#map tbody tr')].filter((row) => row.offsetParent).map((row) => row.dataset.name)";
    assert!(page.value(rows).as_array().is_some_and(|rows| rows.len() > 10));

    page.search("boot info");
    page.browser.wait_for("document.querySelectorAll('#map tbody tr.away').length > 5");
    assert_eq!(page.value(rows), json!(["boot info"]));
    assert!(page.value("CSS.highlights.get('found').size").as_u64().is_some_and(|marks| marks > 0));
    // A match that is folded away is unfolded.
    page.search("PT[");
    page.browser.wait_for("[...document.querySelectorAll('#tables .leaf')].some((leaf) => leaf.offsetParent && leaf.textContent.includes('PT['))");

    page.browser.press("Escape", 27, "");
    page.browser.wait_for("document.querySelectorAll('.away').length === 0 && query.value === ''");
}

#[test]
fn the_keyboard_does_all_that_the_mouse_does() {
    let mut page = Shown::of("01_hello", &[], DESK);
    // Every control is reached by Tab, none twice, and what has the focus is seen.
    let mut seen = Vec::new();
    for _ in 0..400 {
        page.browser.press("Tab", 9, "");
        let tag = page.value("(() => { const e = document.activeElement; e.dataset.met = Number(e.dataset.met ?? 0) + 1; return e.tagName + e.id; })()");
        if tag == "BODY" {
            break;
        }
        seen.push(tag);
    }
    let unmet = "[...document.querySelectorAll('button, summary, input, .plot')].filter((e) => e.offsetParent !== null && !e.dataset.met).length";
    assert_eq!(page.value(unmet), 0, "{seen:?}");

    page.browser.press("/", 191, "/");
    page.browser.wait_for("document.activeElement === query && query.value === ''");

    page.value("document.querySelector('#tables details:not([open]) > summary').focus()");
    page.browser.press("Enter", 13, "\r");
    page.browser.wait_for("document.querySelectorAll('#tables details:not([open])').length === 0");

    page.value("document.querySelector('#map .plot').focus()");
    let range = "document.querySelector('#map .range').textContent";
    let before = page.value(range);
    page.browser.press("+", 187, "+");
    let closer = page.value(range);
    page.browser.press("ArrowRight", 39, "");
    let moved = page.value(range);
    assert!(before != closer && closer != moved, "{before} {closer} {moved}");
    page.browser.press("0", 48, "0");
    assert_eq!(page.value(range), "0x0 to 0x1000000: 16 MiB");

    page.value("document.querySelector('#timeline .plot').focus()");
    page.browser.press(".", 190, ".");
    let first = page.value("document.querySelector('#timeline .detail').textContent");
    assert!(first.as_str().is_some_and(|text| text.contains("Exit 1: out 0xe9 console")), "{first}");
}

#[test]
fn a_region_is_looked_at_closely() {
    let mut page = Shown::of("01_hello", &[], DESK);
    let width = "(() => { const box = document.querySelector('#map .plot .chosen'); return box ? box.getBoundingClientRect().width : 0; })()";
    page.browser.click("#map tr[data-name='boot info'] button");
    page.browser.wait_for(&format!("{width} > 200"));
    let detail = page.value("document.querySelector('#map .detail').textContent");
    assert!(
        detail.as_str().is_some_and(|text| text.starts_with("boot info 0x1000 to 0x2000, 4 KiB, r--")),
        "{detail}"
    );
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways_in_the_dark() {
    let mut page = Shown::of("lab_console", &["--", "1"], PHONE);
    assert_eq!(page.value("[innerWidth, document.documentElement.scrollWidth]"), json!([360, 360]));
    let light = |text: &str| -> u64 {
        let channels = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
        channels.take(3).sum()
    };
    let colours =
        "['background-color', 'color'].map((name) => getComputedStyle(document.body).getPropertyValue(name))";
    let dark = page.value(colours);
    let (paper, ink) = (dark[0].as_str().expect("a colour"), dark[1].as_str().expect("a colour"));
    assert!(light(paper) < 120 && light(ink) > 600, "{dark}");

    page.browser.show(View { dark: false, ..PHONE });
    let bright = page.value(colours);
    let (paper, ink) = (bright[0].as_str().expect("a colour"), bright[1].as_str().expect("a colour"));
    assert!(light(paper) > 700 && light(ink) < 150, "{bright}");
    assert_eq!(page.value("[innerWidth, document.documentElement.scrollWidth]"), json!([360, 360]));
}

#[test]
fn what_a_guest_or_an_image_says_stays_text() {
    const EVIL: &str =
        "</script><script>document.title='evil'</script><img src=x onerror=document.title='evil'>";
    let folder = tempfile::tempdir().expect("a folder");
    let image: PathBuf = folder.path().join("<img src=x onerror=document.title='evil'>");
    fs::copy(guest("probe"), &image).expect("a copy");
    let page = folder.path().join("run.html");
    let mut vmm = Command::new(vmm_binary());
    vmm.args(["run", "--timeout", "20s", "--report"]).arg(&page).arg(&image).args(["--", "log-words", EVIL]);
    let seen = Seen::of(&mut vmm);
    assert_eq!(seen.code, Some(0), "{seen:?}");

    let html = fs::read_to_string(&page).expect("a page");
    let log = data(&html)["timeline"]["log"][0][1].clone();
    assert!(log.as_str().is_some_and(|text| text.contains(EVIL)), "{log}");
    let mut browser = Browser::open(&page, DESK);
    assert_eq!(browser.value("document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.value("document.querySelectorAll('script').length"), 2);
    // The log has a row of the timeline, and its text is shown when it is chosen.
    browser.value("document.querySelector('#timeline .plot').focus()");
    for _ in 0..8 {
        browser.press(".", 190, ".");
    }
    let chosen = browser.value("document.querySelector('#timeline').textContent");
    assert!(chosen.as_str().is_some_and(|text| text.contains("log")), "{chosen}");
    assert_ne!(browser.value("document.title"), "evil");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
