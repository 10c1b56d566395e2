use crate::harness::browser::{Browser, View};
use std::path::Path;
#[test]
fn demo() {
    let mut b = Browser::open(Path::new("/tmp/demo.html"), View { width: 360, height: 740, dark: true });
    println!("{:?}", b.value("document.documentElement.scrollWidth + ' ' + innerWidth + ' ' + getComputedStyle(document.body).backgroundColor"));
    println!("{:?}", b.complaints);
    b.click("#tables details details details details > summary");
    println!("{:?}", b.value("document.querySelector('#tables details details details details').open"));
}
