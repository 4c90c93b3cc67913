//! Tests of seats: plans written in a few letters, and the changes from one to the next.
//!
//! `L:web>app` is a listener that leads to a pool, `R:api>app@web` a route to it on a listener,
//! `P:app=a1,b2` a pool whose backends `a` and `b` are at ports 1 and 2.

use std::sync::Arc;

use super::*;
use crate::plan::{Limits, PathPattern};

const THREADS: usize = 2;

pub(super) fn listener(name: &str, pool: Option<PoolId>) -> Listener {
    Listener { name: name.into(), pool, ..Listener::default() }
}

pub(super) fn route(name: &str, pool: PoolId, listener: Option<ListenerId>) -> Route {
    Route {
        name: name.into(),
        listener,
        hosts: Vec::new(),
        path: PathPattern::Any,
        methods: Vec::new(),
        alpn: Vec::new(),
        headers: Vec::new(),
        priority: 0,
        pool,
    }
}

fn backend(text: &str) -> Backend {
    let (name, port) = text.split_at(1);
    let port: u16 = port.parse().unwrap();
    Backend::new(name.into(), Address::Socket(([127, 0, 0, 1], port).into()))
}

/// A plan as the configuration makes it: without holes.
pub(super) fn plan(text: &str) -> Plan {
    let of = |kind: &'static str| text.split(' ').filter_map(move |word| word.strip_prefix(kind));
    let names =
        |kind| of(kind).map(|word| word.split(['>', '=', '@']).next().unwrap()).collect::<Vec<_>>();
    let (listeners, pools) = (names("L:"), names("P:"));
    let id = |name: &str, names: &[&str]| {
        // A missing one gets an id all the same.
        names.iter().position(|other| *other == name).unwrap_or(names.len()) as u16
    };
    let pool = |name: &str| PoolId(id(name, &pools));
    Plan {
        listeners: of("L:")
            .map(|word| match word.split_once('>') {
                Some((name, to)) => listener(name, Some(pool(to))),
                None => listener(word, None),
            })
            .collect(),
        routes: of("R:")
            .map(|word| {
                let (name, to) = word.split_once('>').unwrap();
                let (to, on) = to.split_once('@').map_or((to, None), |(to, on)| (to, Some(on)));
                Arc::new(route(name, pool(to), on.map(|on| ListenerId(id(on, &listeners)))))
            })
            .collect(),
        pools: of("P:")
            .map(|word| {
                let (name, backends) = word.split_once('=').unwrap();
                let backends = backends.split(',').filter(|text| !text.is_empty());
                let backends = backends.map(backend).collect();
                Arc::new(Pool { name: name.into(), backends, ..Pool::default() })
            })
            .collect(),
        ..Plan::default()
    }
}

/// Each name with its seat: `web0 | api0 | app0=a0,b1`.
pub(super) fn seats(plan: &Plan) -> String {
    let listeners = plan.listeners.iter().map(|(id, it)| format!("{}{}", it.name, id.0));
    let routes = plan.routes.iter().map(|(id, it)| format!("{}{}", it.name, id.0));
    let pools = plan.pools.iter().map(|(id, pool)| {
        let backends = pool.backends.iter().map(|(id, it)| format!("{}{}", it.name, id.0));
        format!("{}{}={}", pool.name, id.0, backends.collect::<Vec<_>>().join(","))
    });
    let parts = [listeners.collect::<Vec<_>>(), routes.collect(), pools.collect()];
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
    parts.into_iter().map(|part| part.join(" ")).collect::<Vec<_>>().join(" | ")
}

struct Stage {
    held: Held,
    busy: Busy,
    changes: String,
}

fn stage() -> Stage {
    Stage { held: Held::new(), busy: Busy::new(), changes: String::new() }
}

impl Stage {
    /// Seats the next plan and publishes it to all threads.
    #[track_caller]
    fn next(&mut self, text: &str, expected: &str) -> &mut Stage {
        let (plan, changes) = seat(plan(text), &self.held, &self.busy).unwrap();
        assert_eq!(seats(&plan), expected);
        self.changes = changes.to_string();
        self.held.publish(Arc::new(plan), 0..THREADS);
        self
    }

    #[track_caller]
    fn refuses(&mut self, text: &str, expected: &str) -> &mut Stage {
        let refused = seat(plan(text), &self.held, &self.busy).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), expected);
        self
    }

    fn let_go(&mut self, generation: u64) -> &mut Stage {
        (0..THREADS).for_each(|thread| self.held.retire(generation, thread));
        self
    }

    #[track_caller]
    fn says(&mut self, expected: &[&str]) -> &mut Stage {
        assert_eq!(self.changes.lines().collect::<Vec<_>>(), expected);
        self
    }
}

#[test]
fn the_first_plan_is_seated_in_its_order() {
    stage().next(
        "L:web>app L:tls R:api>api@tls P:app=a1,b2 P:api=c1",
        "web0 tls1 | api0 | app0=a0,b1 api1=c0",
    );
}

#[test]
fn a_name_keeps_its_seat_and_a_new_one_gets_the_lowest_that_is_free() {
    stage()
        .next("P:app=a1,b2 P:api=c1", "app0=a0,b1 api1=c0")
        .next("P:api=d1,c1 P:app=b2,a1", "app0=a0,b1 api1=c0,d1")
        .next("P:new=e1 P:api=c1,f1", "api1=c0,f2 new2=e0")
        .let_go(1)
        .let_go(2)
        .next("P:newer=g1 P:api=h1,c1", "newer0=g0 api1=c0,h1");
}

#[test]
fn no_seat_is_given_away_while_one_thread_holds_a_plan_that_names_it() {
    let mut stage = stage();
    stage.next("R:a>p P:p=x1", "a0 | p0=x0").next("R:b>q P:q=y1", "b1 | q1=y0");
    stage.held.retire(1, 1);
    stage.next("R:c>q P:q=z1", "c2 | q1=z1");
    stage.held.retire(1, 0);
    stage.next("R:d>q P:q=z1", "d0 | q1=z1");
}

#[test]
fn a_name_that_comes_back_finds_its_seat_if_it_is_still_held() {
    stage()
        .next("P:p=a1,b2", "p0=a0,b1")
        .next("P:p=a1", "p0=a0")
        .next("P:p=a1,c3", "p0=a0,c2")
        .next("P:p=b2,c3,a1", "p0=a0,b1,c2")
        .next("P:q=a1", "q1=a0")
        .next("P:p=b2 P:q=a1", "p0=b1 q1=a0");
    stage()
        .next("P:p=a1,b2", "p0=a0,b1")
        .next("P:p=a1", "p0=a0")
        .let_go(1)
        .next("P:p=a1,c3,b2", "p0=a0,c1,b2");
}

#[test]
fn a_backend_that_moved_or_was_renamed_is_another() {
    stage()
        .next("P:p=a1,b2", "p0=a0,b1")
        .next("P:p=a9,b2", "p0=b1,a2")
        .says(&["~ pool \"p\": 1 address"])
        .next("P:p=a9,c2", "p0=a2,c3")
        .says(&["~ pool \"p\": 1 backend added, 1 backend removed"])
        .next("P:p=a1,b2", "p0=a0,b1");
}

#[test]
fn what_leads_somewhere_leads_there_after_it() {
    let mut stage = stage();
    stage.next("L:x L:y P:o= P:p= P:q=", "x0 y1 | o0= p1= q2=");
    stage.next("L:y>q L:z>p R:r>q@z R:s>p@y P:q= P:p=", "y1 z2 | r0 s1 | p1= q2=");
    let plan = stage.held.in_force();
    let listeners = plan.listeners.values().map(|it| plan.pool(it.pool.unwrap()).name.clone());
    assert_eq!(listeners.collect::<Vec<_>>(), ["q", "p"]);
    let route = |it: &Route| {
        let listener = plan.listener(it.listener.unwrap());
        (plan.pool(it.pool).name.clone(), listener.name.clone())
    };
    let routes = plan.routes.values().map(|it| route(it)).collect::<Vec<_>>();
    assert_eq!(routes, [("q".into(), "z".into()), ("p".into(), "y".into())]);
}

#[test]
fn a_seat_with_requests_under_way_is_not_given_away() {
    let mut stage = stage();
    stage.next("P:p=a1,b2 P:q=a1", "p0=a0,b1 q1=a0").next("P:p=b2", "p0=b1").let_go(1);
    let one = |id| [BackendId(id)].into_iter().collect::<BackendSet>();
    // A tunnel at `a` of each pool; one at `b`, which has its seat anyway.
    stage.busy.insert(PoolId(0), one(0) | one(1));
    stage.busy.insert(PoolId(1), one(0));
    stage.next("P:p=b2,c3 P:r=d1", "p0=b1,c2 r2=d0").let_go(2);
    // The pool of the other is gone as well: once nothing is busy, its seat is free.
    stage.busy =
        [(PoolId(0), BackendSet::EMPTY), (PoolId(1), BackendSet::EMPTY)].into_iter().collect();
    stage.next("P:p=b2,e5 P:s=d1", "p0=e0,b1 s1=d0");
}

#[test]
fn what_cannot_be_seated_is_refused_and_changes_nothing() {
    let later = "and requests of earlier plans hold too many; try again when they have ended";
    let mut stage = stage();
    stage
        .refuses("P:p= P:p=", "two pools are called \"p\"")
        .refuses("P:p=a1,b2,a3", "two backends are called \"a\"")
        .refuses("R:r>p R:r>p P:p=", "two routes are called \"r\"")
        .refuses("L:l L:l", "two listeners are called \"l\"")
        .refuses("L:l>nowhere P:p=", "listener \"l\" leads to what is not in the plan")
        .refuses("R:r>nowhere P:p=", "route \"r\" leads to what is not in the plan")
        .refuses("R:r>p@nowhere P:p=", "route \"r\" leads to what is not in the plan");
    // As many backends as a pool may have, some of them replaced.
    let backends = |range: std::ops::Range<u16>| {
        let named =
            range.map(|port| Backend { name: port.to_string(), ..backend(&format!("x{port}")) });
        let pool = Pool { name: "p".into(), backends: named.collect(), ..Pool::default() };
        Plan { pools: vec![Arc::new(pool)].into(), ..Plan::default() }
    };
    let (full, _) = seat(backends(1..1025), &stage.held, &stage.busy).unwrap();
    stage.held.publish(Arc::new(full), 0..THREADS);
    let refused = seat(backends(3..1027), &stage.held, &stage.busy).map(|_| ()).unwrap_err();
    assert_eq!(refused, Refused::PoolFull { pool: "p".into(), lacking: 2 });
    let expected = format!("no seat is left for 2 backends of pool \"p\": there are 1024, {later}");
    assert_eq!(refused.to_string(), expected);
    let (fewer, _) = seat(backends(3..1025), &stage.held, &stage.busy).unwrap();
    stage.held.publish(Arc::new(fewer), 0..THREADS);
    assert!(seat(backends(3..1027), &stage.held, &stage.busy).is_err());
    stage.let_go(1);
    let (next, _) = seat(backends(3..1027), &stage.held, &stage.busy).unwrap();
    assert_eq!(next.pool(PoolId(0)).backends.get(BackendId(0)).unwrap().name, "1025");
    // More routes than there are seats, because all are held.
    let routes = |from: u32, to: u32| {
        let routes = (from..to).map(|it| Arc::new(route(&it.to_string(), PoolId(0), None)));
        Plan { routes: routes.collect(), ..plan("P:p=") }
    };
    let mut held = Held::new();
    let (first, _) = seat(routes(0, 65_000), &held, &Busy::new()).unwrap();
    held.publish(Arc::new(first), [0]);
    let refused = seat(routes(64_000, 66_000), &held, &Busy::new()).map(|_| ()).unwrap_err();
    assert_eq!(refused, Refused::Full { what: "route", lacking: 464 });
    let expected = format!("no seat is left for 464 routes: there are 65536, {later}");
    assert_eq!(refused.to_string(), expected);
}

/// An earlier plan that is still held costs what has changed since, and not another plan.
#[test]
fn rows_that_stay_the_same_are_those_of_the_plan_before() {
    let mut stage = stage();
    stage.next("R:a>p R:b>q R:c>q P:p=a1 P:q=b1", "a0 b1 c2 | p0=a0 q1=b0");
    let first = Arc::clone(stage.held.in_force());
    // In another order, and `b` leads elsewhere.
    stage.next("R:c>q R:b>p R:a>p P:q=b1,c2 P:p=a1", "a0 b1 c2 | p0=a0 q1=b0,c1");
    let second = stage.held.in_force();
    let is_shared = |id| Arc::ptr_eq(first.routes.get(id).unwrap(), second.routes.get(id).unwrap());
    assert_eq!([0, 1, 2].map(RouteId).map(is_shared), [true, false, true]);
    let is_shared = |id| Arc::ptr_eq(first.pools.get(id).unwrap(), second.pools.get(id).unwrap());
    assert_eq!([0, 1].map(PoolId).map(is_shared), [true, false]);
}

#[test]
fn changes_are_said_by_name() {
    stage()
        .next("L:web>app R:old>app P:app=a1,b2,c3 P:api=d1", "web0 | old0 | app0=a0,b1,c2 api1=d0")
        .says(&["+ listener \"web\"", "+ route \"old\"", "+ pool \"api\"", "+ pool \"app\""])
        .next("P:api=d1 L:web>app P:app=c3,a1,b2 R:old>app", "web0 | old0 | app0=a0,b1,c2 api1=d0")
        .says(&[])
        .next(
            "L:web>api R:canary>api P:app=a1,x4,y5 P:api=d2",
            "web0 | canary1 | app0=a0,x3,y4 api1=d1",
        )
        .says(&[
            "~ listener \"web\": pool",
            "+ route \"canary\"",
            "- route \"old\"",
            "~ pool \"api\": 1 address",
            "~ pool \"app\": 2 backends added, 2 backends removed",
        ]);
}

#[test]
fn keys_are_said_as_the_configuration_calls_them() {
    let now = seat(plan("L:web>app R:r>app P:app=a1,b2,c3"), &Held::new(), &Busy::new()).unwrap().0;
    #[track_caller]
    fn check(now: &Plan, change: impl Fn(&mut Plan), expected: &str) {
        let mut held = Held::new();
        held.publish(Arc::new(now.clone()), [0]);
        let mut next = now.clone();
        change(&mut next);
        let (_, changes) = seat(next, &held, &Busy::new()).unwrap();
        assert_eq!(changes.to_string(), format!("{expected}\n"));
        assert!(!changes.is_empty());
    }
    let app = |plan: &mut Plan, change: fn(&mut Pool)| {
        plan.pools.values_mut().for_each(|pool| change(Arc::make_mut(pool)));
    };
    let weights = |plan: &mut Plan| {
        for (id, backend) in
            Arc::make_mut(plan.pools.get_mut(PoolId(0)).unwrap()).backends.iter_mut()
        {
            backend.weight = id.0;
            backend.backup = true;
            backend.in_flight_max = 7;
        }
    };
    let expected = "~ pool \"app\": 2 weights, 3 backups, 3 max-in-flight";
    // The second has weight 1, as before.
    check(&now, weights, expected);
    check(&now, |plan| app(plan, |pool| pool.panic.0 += 1), "~ pool \"app\": panic");
    let several: fn(&mut Pool) = |pool| {
        pool.timeouts.connect *= 2;
        pool.algorithm = crate::plan::Algorithm::Random;
        pool.backends.remove(BackendId(1));
    };
    check(&now, |plan| app(plan, several), "~ pool \"app\": 1 backend removed, balance, timeouts");
    check(&now, |plan| plan.global.pin = false, "~ global: pin");
    let limits = |plan: &mut Plan| {
        plan.global.log_format = crate::plan::LogFormat::Json;
        plan.limits = Limits { line_bytes_max: 1, body_bytes_max: 9, ..plan.limits };
    };
    check(&now, limits, "~ global: log, limits.header-size, limits.body-size");
    let backlog = |plan: &mut Plan| plan.listeners.values_mut().for_each(|it| it.backlog += 1);
    check(&now, backlog, "~ listener \"web\": backlog");
    let path = |plan: &mut Plan| {
        let path = PathPattern::Exact("/".into());
        plan.routes.values_mut().for_each(|it| Arc::make_mut(it).path = path.clone());
    };
    check(&now, path, "~ route \"r\": path");
}

/// Names that come and go for ever use the same few seats, once threads have released them.
#[test]
fn seats_are_used_again() {
    let (mut held, mut span) = (Held::new(), (0, 0, 0, 0));
    for round in 0_u16..1_000 {
        let text = format!(
            "L:l{round}>p{round} R:r{round}>p{round} P:p{round}=a1 P:q=a{round},b{}",
            1 + round % 7
        );
        let (plan, _) = seat(plan(&text), &held, &Busy::new()).unwrap();
        let q = plan.pools.values().find(|pool| pool.name == "q").unwrap();
        let spans =
            (plan.listeners.span(), plan.routes.span(), plan.pools.span(), q.backends.span());
        span = span.max(spans);
        let generation = held.publish(Arc::new(plan), 0..THREADS);
        // They release each three plans later.
        if let Some(early) = generation.checked_sub(3) {
            (0..THREADS).for_each(|thread| held.retire(early, thread));
        }
        assert!(held.free().len() <= 1);
        assert!(held.plans().count() <= 3);
    }
    assert!(span <= (4, 4, 5, 8), "{span:?}");
}
