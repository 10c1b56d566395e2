//! The macros that define what crosses: each writes a type once and derives all else from it.
//!
//! A number or an offset that stands in two places will differ some day. So `hypercalls!`, `shared_enum!` and
//! `shared_struct!` take a definition that reads like plain Rust and generate, beside the type, its encoding and its
//! lines of the [contract](crate::contract).

use crate::addr::{Gpa, Gva};
use crate::hypercall::HypercallError;

/// A value that fits into one 64-bit register.
pub trait Argument: Sized {
    /// The value as a register holds it.
    fn to_word(&self) -> u64;

    /// The value a register holds.
    ///
    /// # Errors
    /// [`HypercallError::BadArgument`] when no value of the type is encoded like this.
    fn from_word(word: u64) -> Result<Self, HypercallError>;
}

impl Argument for u64 {
    fn to_word(&self) -> u64 {
        *self
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        Ok(word)
    }
}

impl Argument for i64 {
    fn to_word(&self) -> u64 {
        self.cast_unsigned()
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        Ok(word.cast_signed())
    }
}

impl Argument for u32 {
    fn to_word(&self) -> u64 {
        u64::from(*self)
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        Self::try_from(word).map_err(|_| HypercallError::BadArgument)
    }
}

impl Argument for bool {
    fn to_word(&self) -> u64 {
        u64::from(*self)
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        match word {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(HypercallError::BadArgument),
        }
    }
}

impl Argument for Gva {
    fn to_word(&self) -> u64 {
        self.0
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        Ok(Self(word))
    }
}

impl Argument for Gpa {
    fn to_word(&self) -> u64 {
        self.0
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        Ok(Self(word))
    }
}

/// Defines the hypercalls: an enum in which every variant has its number, `Name { argument: Type } = number`.
///
/// Generates `number`, `name`, `name_of`, `encode`, `decode` and `describe`. Two calls of one number do not compile.
macro_rules! hypercalls {
    (
        $(#[$enum_meta:meta])*
        pub enum $Enum:ident {
            $(
                $(#[$call_meta:meta])*
                $Call:ident $({ $( $(#[$argument_meta:meta])* $argument:ident: $Type:ty ),* $(,)? })? = $number:literal,
            )*
        }
    ) => {
        $(#[$enum_meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Enum {
            $(
                $(#[$call_meta])*
                $Call $({ $( $(#[$argument_meta])* $argument: $Type ),* })?,
            )*
        }

        impl $Enum {
            /// The number that names the call.
            #[must_use]
            pub const fn number(&self) -> u64 {
                match self { $( Self::$Call { .. } => $number, )* }
            }

            /// The call's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$Call { .. } => stringify!($Call), )* }
            }

            /// The name of the call that has this number.
            #[must_use]
            pub const fn name_of(number: u64) -> Option<&'static str> {
                match number { $( $number => Some(stringify!($Call)), )* _ => None }
            }

            /// The call as registers hold it.
            #[must_use]
            pub fn encode(&self) -> $crate::hypercall::Registers {
                match self {
                    $( Self::$Call $({ $( $argument ),* })? => {
                        $crate::hypercall::Registers::new(
                            $number,
                            &[ $( $( $crate::define::Argument::to_word($argument) ),* )? ],
                        )
                    } )*
                }
            }

            /// The call that registers hold. They are a stranger's: nothing is trusted.
            ///
            /// # Errors
            /// `UnknownCall` and `BadArgument`.
            #[deny(unreachable_patterns)] // a number used twice
            pub fn decode(
                registers: &$crate::hypercall::Registers,
            ) -> Result<Self, $crate::hypercall::HypercallError> {
                let mut words = registers.arguments.iter().copied();
                let mut word = || words.next().unwrap_or_default();
                let _ = &mut word;
                match registers.number {
                    $( $number => Ok(Self::$Call $({
                        $( $argument: $crate::define::Argument::from_word(word())? ),*
                    })?), )*
                    _ => Err($crate::hypercall::HypercallError::UnknownCall),
                }
            }

            /// Adds the calls to the contract.
            pub(crate) const fn describe(text: $crate::contract::Text) -> $crate::contract::Text {
                $(
                    let text = text.call(
                        stringify!($Call),
                        $number,
                        concat!($( $( " (", stringify!($argument), ": ", stringify!($Type), ")", )* )? ""),
                    );
                )*
                text
            }
        }
    };
}

/// Defines an enum whose values cross as numbers, `Name = number`.
///
/// Generates `ALL`, `from_number`, [`Argument`] and `describe`.
macro_rules! shared_enum {
    (
        $(#[$enum_meta:meta])*
        pub enum $Enum:ident { $( $(#[$value_meta:meta])* $Value:ident = $number:literal, )* }
    ) => {
        $(#[$enum_meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum $Enum { $( $(#[$value_meta])* $Value = $number, )* }

        impl $Enum {
            /// All values.
            pub const ALL: &[Self] = &[ $( Self::$Value, )* ];

            /// The value with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $( $number => Some(Self::$Value), )* _ => None }
            }

            /// Adds the values to the contract.
            pub(crate) const fn describe(text: $crate::contract::Text) -> $crate::contract::Text {
                $( let text = text.number(stringify!($Enum), stringify!($Value), $number); )*
                text
            }
        }

        impl $crate::define::Argument for $Enum {
            fn to_word(&self) -> u64 {
                *self as u64
            }

            fn from_word(word: u64) -> Result<Self, $crate::hypercall::HypercallError> {
                Self::from_number(word).ok_or($crate::hypercall::HypercallError::BadArgument)
            }
        }
    };
}

/// Defines a structure that crosses through memory: 64-bit fields only, in order, without padding.
///
/// Generates [`Shared`] and `describe`.
macro_rules! shared_struct {
    (
        $(#[$struct_meta:meta])*
        pub struct $Struct:ident { $( $(#[$field_meta:meta])* pub $field:ident: $Type:ty, )* }
    ) => {
        $(#[$struct_meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Struct { $( $(#[$field_meta])* pub $field: $Type, )* }

        // Padding would carry bytes that nobody wrote.
        const _: () = assert!(0 $( + size_of::<$Type>() )* == size_of::<$Struct>());

        impl $crate::define::Shared for $Struct {
            fn write(&self, words: &mut dyn FnMut(u64)) {
                $( $crate::define::Shared::write(&self.$field, words); )*
            }

            fn read(words: &mut dyn FnMut() -> u64) -> Self {
                Self { $( $field: $crate::define::Shared::read(words), )* }
            }
        }

        impl $Struct {
            /// Adds the fields to the contract.
            pub(crate) const fn describe(text: $crate::contract::Text) -> $crate::contract::Text {
                $(
                    let text = text.field(
                        stringify!($Struct),
                        stringify!($field),
                        stringify!($Type),
                        core::mem::offset_of!($Struct, $field),
                        size_of::<$Type>(),
                    );
                )*
                text
            }
        }
    };
}

pub(crate) use {hypercalls, shared_enum, shared_struct};

/// A value that crosses through memory as 64-bit little-endian words.
pub trait Shared {
    /// Hands out the words, in order.
    fn write(&self, words: &mut dyn FnMut(u64));

    /// The value that the words are, fetched in order.
    fn read(words: &mut dyn FnMut() -> u64) -> Self
    where
        Self: Sized;
}

impl Shared for u64 {
    fn write(&self, words: &mut dyn FnMut(u64)) {
        words(*self);
    }

    fn read(words: &mut dyn FnMut() -> u64) -> Self {
        words()
    }
}

impl<T: Shared, const N: usize> Shared for [T; N] {
    fn write(&self, words: &mut dyn FnMut(u64)) {
        self.iter().for_each(|item| item.write(words));
    }

    fn read(words: &mut dyn FnMut() -> u64) -> Self {
        core::array::from_fn(|_| T::read(words))
    }
}
