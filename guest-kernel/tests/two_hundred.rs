//! Two hundred tests, so that `tests/guest_tests.rs` can say how long that many machines take.

#![cfg_attr(target_os = "none", no_std, no_main)]

guest_kernel::test_main!();

/// Ten tests for each of the modules.
macro_rules! ten_each {
    ($($module:ident)*) => {
        $(
            mod $module {
                ten_each!(@tests one two three four five six seven eight nine ten);
            }
        )*
    };
    (@tests $($test:ident)*) => {
        $(
            #[guest_kernel::guest_test(max_exits = 0)]
            fn $test() {
                assert_eq!(guest_kernel::arguments().count(), 2);
            }
        )*
    };
}

ten_each!(a b c d e f g h i j k l m n o p q r s t);
