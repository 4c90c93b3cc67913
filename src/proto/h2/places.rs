//! The places of streams: how many all clients of a core may have open, and each of them.
//!
//! A stream is like a connection: it has a task, perhaps a connection to a backend, and a piece of
//! a body. So there are as many as there may be connections, and of one client fewer: with the
//! hundred of a connection on each of a hundred connections it would take what others need. Who
//! knows that it speaks for many, a proxy in front, is trusted and has its share of all.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use crate::base::subscriber::Subscriber;

/// Streams of one client on a core: ten connections full of them. Each may cost 64 KiB of a body.
pub(super) const OF_CLIENT_MAX: usize = 1_000;

/// The places on a core.
#[derive(Default)]
pub(crate) struct Places {
    taken: Cell<usize>,
    /// Those of clients that have connections.
    clients: RefCell<HashMap<Subscriber, Rc<Cell<usize>>>>,
}

/// The places that the streams of a connection take.
pub(crate) struct Share {
    of: Rc<Places>,
    /// How many there are in all.
    most: usize,
    /// The client, and what it has taken on all of its connections; none = it is one of those that
    /// speak for many.
    client: Option<(Subscriber, Rc<Cell<usize>>)>,
}

impl Places {
    /// For a connection of this client, or of one that speaks for many; with so many in all.
    pub(crate) fn share(self: &Rc<Places>, client: Option<Subscriber>, most: usize) -> Share {
        let client = client.map(|client| {
            (client, Rc::clone(self.clients.borrow_mut().entry(client).or_default()))
        });
        Share { of: Rc::clone(self), most, client }
    }
}

impl Share {
    /// Takes a place, if there is one.
    #[inline]
    pub(super) fn take(&self) -> bool {
        let all = self.of.taken.get();
        let own = self.client.as_ref().map_or(0, |(_, own)| own.get());
        let takes = all < self.most && own < OF_CLIENT_MAX;
        if takes {
            self.of.taken.set(all + 1);
            self.client.iter().for_each(|(_, it)| it.set(own + 1));
        }
        takes
    }

    /// Gives some back.
    #[inline]
    pub(super) fn give(&self, count: usize) {
        let less = |taken: &Cell<usize>| taken.set(taken.get().saturating_sub(count));
        less(&self.of.taken);
        self.client.iter().for_each(|(_, own)| less(own));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((client, own)) = &self.client
            // Here and in the table: it was the last.
            && Rc::strong_count(own) == 2
        {
            self.of.clients.borrow_mut().remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(number: u32) -> Option<Subscriber> {
        Some(Subscriber::of(IpAddr::V4(number.into())))
    }

    fn takes(share: &Share) -> usize {
        (0..100_000).take_while(|_| share.take()).count()
    }

    #[test]
    fn one_client_has_so_many_on_all_of_its_connections_and_others_have_theirs() {
        let places = Rc::new(Places::default());
        let most = 2 * OF_CLIENT_MAX + 5;
        let [one, two, other] = [1, 1, 2].map(|number| places.share(client(number), most));
        assert!((0..10).all(|_| one.take()));
        assert_eq!((takes(&two), takes(&one)), (OF_CLIENT_MAX - 10, 0));
        assert_eq!(takes(&other), OF_CLIENT_MAX);
        let third = places.share(client(3), most);
        assert_eq!(takes(&third), 5, "of all");
        one.give(3);
        assert_eq!((takes(&third), takes(&two)), (3, 0));
        other.give(2);
        assert_eq!(takes(&two), 2);
        let all = places.share(None, most);
        assert_eq!(takes(&all), 0);
        third.give(8);
        assert_eq!(takes(&all), 8);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let places = Rc::new(Places::default());
        let [one, two] = [1, 1].map(|number| places.share(client(number), 9));
        assert!(one.take());
        one.give(1);
        drop(one);
        assert_eq!(places.clients.borrow().len(), 1);
        drop(two);
        assert!(places.clients.borrow().is_empty() && places.taken.get() == 0);
    }
}
