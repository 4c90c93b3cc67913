//! Ids: what names become once the configuration is checked.
//!
//! Each is an index into one table of the plan, with a type of its own so that a pool's index
//! cannot be used on routes.

/// An id: an index of a type of its own.
pub trait Id: Copy + Eq {
    /// How many there are.
    const COUNT: usize = 1 << 16;

    /// The place in the table.
    fn index(self) -> usize;

    /// The id of a place, if the place has one.
    fn at(index: usize) -> Option<Self>;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u16);

        impl $name {
            /// The place in the plan's table.
            #[inline]
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }

        impl Id for $name {
            #[inline]
            fn index(self) -> usize {
                $name::index(self)
            }

            #[inline]
            fn at(index: usize) -> Option<$name> {
                u16::try_from(index).ok().map($name)
            }
        }
    };
}

id!(/// A listener of the plan.
    ListenerId);
id!(/// A route of the plan.
    RouteId);
id!(/// A pool of the plan.
    PoolId);
id!(/// A backend's slot in its pool; kept until no core holds a plan that names it.
    BackendId);
