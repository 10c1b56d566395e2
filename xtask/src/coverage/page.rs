//! The page: every file with its lines, those that were reached and those that were not. One file, without scripts.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::lcov::{Counts, Lines};
use crate::workspace;

const STYLE: &str = "\
:root { color-scheme: light dark; --good: #d3f2d9; --bad: #ffd9d6; --faint: #777; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --good: #12391d; --bad: #561e1c; --faint: #999; --line: #333 } }
body { font: 15px/1.4 system-ui, sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem }
summary { display: grid; grid-template-columns: 1fr 6rem 8rem; gap: 1rem; align-items: center; cursor: pointer;
  padding: .2rem 0; border-bottom: 1px solid var(--line) }
summary span { text-align: right; font-variant-numeric: tabular-nums }
meter { width: 100% }
pre { font: 13px/1.35 ui-monospace, monospace; overflow-x: auto; margin: .4rem 0 1rem }
pre div { min-width: max-content }
i { display: inline-block; width: 4rem; padding-right: 1rem; text-align: right; color: var(--faint); font-style: normal;
  user-select: none }
.r { background: var(--good) } .n { background: var(--bad) }
";

/// The page of these lines.
///
/// # Errors
/// When a source cannot be read.
pub(super) fn render(lines: &Lines) -> Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Coverage</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{STYLE}</style>\n<h1>Coverage</h1>\n\
         <p>{}. Green: reached. Red: not reached. Lines without colour have no code.\n",
        words(lines.total())
    );
    for (file, counts) in lines.files() {
        let name = escaped(file);
        let percent = counts.percent();
        write!(
            page,
            "<details><summary>{name}<span>{}/{}</span><meter min=\"0\" max=\"100\" value=\"{percent:.1}\" \
             title=\"{percent:.1} %\">{percent:.1} %</meter></summary>\n<pre>",
            counts.covered, counts.lines
        )?;
        write_source(&mut page, file, lines)?;
        page.push_str("</pre></details>\n");
    }
    page.push_str("</html>\n");
    Ok(page)
}

fn words(counts: Counts) -> String {
    format!("{} of {} lines were reached: {:.1} %", counts.covered, counts.lines, counts.percent())
}

fn write_source(page: &mut String, file: &str, lines: &Lines) -> Result<()> {
    let path = workspace::root().join(file);
    let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let hits = lines.of(file);
    for (text, number) in source.lines().zip(1u64..) {
        let class = match hits.and_then(|hits| hits.get(&number)) {
            None => "",
            Some(0) => " class=\"n\"",
            Some(_) => " class=\"r\"",
        };
        write!(page, "<div{class}><i>{number}</i>{}</div>", escaped(text))?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_colour_of_what_became_of_it_and_its_text_is_escaped() {
        let source = fs::read_to_string(workspace::root().join(file!())).expect("this file");
        let line = source.lines().position(|line| line.contains("replace('&'")).expect("it is there") + 1;
        let page =
            render(&Lines::read(&format!("SF:{}\nDA:1,0\nDA:{line},3\n", file!()))).expect("it renders");
        assert!(page.contains("<div class=\"n\"><i>1</i>//! The page"), "{page}");
        let escaped = "    text.replace('&amp;', &quot;&amp;amp;&quot;)";
        assert!(page.contains(&format!("<div class=\"r\"><i>{line}</i>{escaped}")), "{page}");
        assert!(page.contains("1 of 2 lines were reached: 50.0 %"), "{page}");
        let needs = ["<script", "<link", "<img"].into_iter().filter(|element| page.contains(element));
        assert_eq!(needs.count(), 0, "it needs no other file");
    }
}
