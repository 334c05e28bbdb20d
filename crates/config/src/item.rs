//! A directive as the file gives it: its row of the table, and values that have their types.
//!
//! Made by `walk`, read by `resolve`. A value that did not fit its type is simply missing: it has been
//! reported.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Span;
use crate::plan::Cidr;
use crate::table::{self, Directive, Field, Need, Type};
use crate::value::{Raw, Value};

/// A directive as the file gives it.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its row.
    pub(crate) row: &'static Directive,
    /// Its word.
    pub(crate) span: Span,
    pub(crate) values: Vec<Given>,
    /// Its block.
    pub(crate) children: Vec<Item>,
    /// Directives that its block has, or that somebody seems to have meant there.
    pub(crate) said: Vec<&'static str>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) field: &'static Field,
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// What [`Item::get`] can return.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $result:expr;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value { $pattern => $result, _ => None }
            }
        }
    )*};
}

from_value! {
    Arc<str>: Value::Text(text) => Some(text.clone());
    u64: Value::Integer(number) => Some(*number);
    u32: Value::Integer(number) => u32::try_from(*number).ok();
    u16: Value::Integer(number) => u16::try_from(*number).ok();
    u8: Value::Integer(number) => u8::try_from(*number).ok();
    i16: Value::Signed(number) => Some(*number);
    SocketAddr: Value::Socket(address) => Some(*address);
    IpAddr: Value::Ip(address) => Some(*address);
    Duration: Value::Duration(time) => Some(*time);
    Vec<Cidr>: Value::Networks(networks) => Some(networks.clone());
    (u16, u16): Value::Statuses(first, last) => Some((*first, *last));
}

impl Item {
    /// The directive as it is where the file does not have it; `span` is what is pointed at instead.
    fn absent(row: &'static Directive, span: Span) -> Self {
        let mut item = Self { row, span, values: Vec::new(), children: Vec::new(), said: Vec::new() };
        item.fill_in_defaults();
        item
    }

    pub(crate) fn fill_in_defaults(&mut self) {
        for field in self.row.arguments.iter().chain(self.row.properties) {
            let Need::Default(text) = field.need else { continue };
            if self.values.iter().any(|given| given.field.name == field.name) {
                continue;
            }
            let raw = text.parse().map_or_else(|_| Raw::Text(text.into()), Raw::Integer);
            if let Ok(value) = field.kind.parse(&raw) {
                self.values.push(Given { field, value, span: self.span.clone() });
            }
        }
    }

    /// Values in the order of the file.
    pub(crate) fn values(&self) -> &[Given] {
        &self.values
    }

    /// The value of an argument or property. `None`: it was left out and has no default, or it did not
    /// fit and has been reported.
    pub(crate) fn get<T: FromValue>(&self, field: &str) -> Option<T> {
        T::from_value(&self.values.iter().find(|given| given.field.name == field)?.value)
    }

    /// Whether this argument or property is given, and fits.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.values.iter().any(|given| given.field.name == field)
    }

    /// Every value of an argument that may be repeated.
    pub(crate) fn all<T: FromValue>(&self, field: &str) -> Vec<(T, Span)> {
        let given = self.values.iter().filter(|given| given.field.name == field);
        given.filter_map(|given| Some((T::from_value(&given.value)?, given.span.clone()))).collect()
    }

    /// Where a value stands; where the directive's word stands if it was left out.
    pub(crate) fn span_of(&self, field: &str) -> Span {
        self.values
            .iter()
            .find(|given| given.field.name == field)
            .map_or(self.span.clone(), |given| given.span.clone())
    }

    /// The name that it declares, as given.
    pub(crate) fn name(&self) -> Arc<str> {
        self.values
            .iter()
            .find(|given| matches!(given.field.kind, Type::Name(_)))
            .and_then(|given| Arc::<str>::from_value(&given.value))
            .unwrap_or_else(|| "".into())
    }

    /// Where its name stands.
    pub(crate) fn name_span(&self) -> Span {
        self.values
            .iter()
            .find(|given| matches!(given.field.kind, Type::Name(_)))
            .map_or(self.span.clone(), |given| given.span.clone())
    }

    /// Directives of this name in its block.
    pub(crate) fn each<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a Item> {
        self.children.iter().filter(move |item| item.row.name == name)
    }

    /// Whether its block has a directive of this name, or one that cannot be read and seems to be it.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.said.contains(&name)
    }

    /// The directive of this name in its block.
    pub(crate) fn find(&self, name: &'static str) -> Option<&Item> {
        self.children.iter().find(|item| item.row.name == name)
    }

    /// The directive of this name in its block, with its defaults where the file does not have it.
    pub(crate) fn setting(&self, name: &'static str) -> Setting<'_> {
        match self.find(name) {
            Some(item) => Setting::Given(item),
            None => match self.row.block.and_then(|section| table::rows(section, name).first().copied()) {
                Some(row) => Setting::Absent(Item::absent(row, self.span.clone())),
                None => unreachable!("the table has no `{name}` in `{}`", self.row.name),
            },
        }
    }
}

/// A directive that is there either way.
pub(crate) enum Setting<'a> {
    Given(&'a Item),
    Absent(Item),
}

impl std::ops::Deref for Setting<'_> {
    type Target = Item;

    fn deref(&self) -> &Item {
        match self {
            Self::Given(item) => item,
            Self::Absent(item) => item,
        }
    }
}
