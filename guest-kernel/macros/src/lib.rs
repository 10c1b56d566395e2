//! `#[guest_test]`. Attributes must come from a crate of their own, which the compiler loads; so this one only finds
//! the function's name, and `register_test!` in `guest-kernel/src/testing.rs` does the rest.

use proc_macro::{TokenStream, TokenTree};

/// Makes a function a test that runs in a virtual machine of its own; what it may say in parentheses stands in
/// `guest_kernel::testing`.
#[proc_macro_attribute]
pub fn guest_test(options: TokenStream, function: TokenStream) -> TokenStream {
    let Some(name) = name_of(function.clone()) else {
        return parse("compile_error!(\"`#[guest_test]` stands before a function\");");
    };
    let mut test = parse("#[cfg(test)]");
    test.extend(function);
    test.extend(parse("::guest_kernel::register_test!"));
    let words = [name, parse(","), options].into_iter().flatten().collect();
    test.extend([TokenTree::Group(proc_macro::Group::new(proc_macro::Delimiter::Brace, words))]);
    test
}

/// The word behind `fn`.
fn name_of(function: TokenStream) -> Option<TokenStream> {
    let mut words = function.into_iter().skip_while(|word| word.to_string() != "fn");
    words.nth(1).map(TokenStream::from)
}

fn parse(code: &str) -> TokenStream {
    code.parse().expect("it is Rust")
}
