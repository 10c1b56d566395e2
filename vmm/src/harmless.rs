//! Characters that may be shown as they are.
//!
//! Names in an image and a guest's last words are strangers' text, and a terminal obeys some of it: control characters
//! move its cursor and change its title, and characters that turn the direction of writing make a line read as another.

/// Whether `c` is shown where it stands and does nothing else.
#[must_use]
pub(crate) fn is_harmless(c: char) -> bool {
    let is_format = matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}');
    !c.is_control() && !is_format
}

#[cfg(test)]
mod tests {
    use super::is_harmless;

    #[test]
    fn letters_of_any_script_are_shown_and_what_steers_a_terminal_is_not() {
        assert!("aé\u{5D0}\u{4E2D}\u{1F980} ".chars().all(is_harmless));
        assert!("\x1b\n\r\t\u{7f}\u{9b}\u{202E}\u{2066}\u{200B}\u{FEFF}".chars().all(|c| !is_harmless(c)));
    }
}
