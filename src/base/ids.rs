//! Typed ids: indexes into the tables of the plan, in place of the names of the configuration.
//!
//! Each table has a type of id of its own, so a pool's index cannot be used on routes.

/// An id: an index with a type of its own.
pub trait Id: Copy + Eq {
    /// How many ids of this type there can be.
    const COUNT: usize = 1 << 16;

    /// The index in the table.
    fn index(self) -> usize;

    /// The id of an index, if the index has one.
    fn at(index: usize) -> Option<Self>;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u16);

        impl $name {
            /// The index in the plan's table.
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
