//! Tests of the overlay: orders, what they make of a plan, what a later configuration keeps, and
//! what the addresses of names make of entries. Orders are taken as those of an operator are; how
//! one is carried out is tested with the threads.

use std::{collections::HashSet, sync::Arc};

use super::*;
use crate::base::rng::Rng;
use crate::plan::Duty;
use crate::policy::resolve::Found;

const TEXT: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    pool = "app"
    [pool.app]
    backends = ["10.0.0.1:80", { address = "10.0.0.2:80", name = "b", weight = 3 }]
    [pool.other]
    backends = ["10.0.0.1:80"]
"#;

fn layers(text: &str) -> Layers {
    let base = crate::config::parse("overlay.toml", text).unwrap_or_else(|wrong| panic!("{wrong}"));
    Layers { base: Arc::new(base.plan.into_plan()), ..Layers::default() }
}

fn address(text: &str) -> Address {
    Address::Socket(text.parse().unwrap())
}

fn add(backend: &str, at: &str, weight: u16) -> Order {
    Order::Add { pool: "app".into(), backend: backend.into(), address: address(at), weight }
}

fn set(backend: &str, weight: Option<u16>, duty: Option<Duty>) -> Order {
    let settings = Settings { weight, duty };
    Order::Set { pool: "app".into(), backend: backend.into(), settings }
}

fn remove(backend: &str) -> Order {
    Order::Remove { pool: "app".into(), backend: backend.into() }
}

/// The backends of pool `app`: name, address, weight and duty.
fn seen(plan: &Plan) -> Vec<String> {
    let pool = plan.pools.values().find(|pool| pool.name == "app").unwrap();
    let line =
        |it: &Backend| format!("{} {} {} {}", it.name, it.address, it.weight, it.duty.word());
    let mut lines: Vec<String> = pool.backends.values().map(line).collect();
    lines.sort();
    lines
}

/// After these orders, each of which is taken.
fn after(text: &str, orders: &[Order]) -> Layers {
    let mut layers = layers(text);
    for order in orders {
        layers.overlay = layers.amend(order).unwrap_or_else(|why| panic!("{order:?}: {why}"));
        let Composed { overlay, misfits, .. } = layers.compose();
        assert_eq!((&overlay, &*misfits), (&layers.overlay, &[][..]), "{order:?}");
    }
    layers
}

#[track_caller]
fn check(orders: &[Order], expected: &[&str]) {
    assert_eq!(seen(&after(TEXT, orders).compose().plan), expected);
}

const FIRST: &str = "10.0.0.1:80 10.0.0.1:80 1 up";
const SECOND: &str = "b 10.0.0.2:80 3 up";

#[test]
fn what_is_ordered_is_in_the_plan() {
    check(&[], &[FIRST, SECOND]);
    check(&[add("c", "10.0.0.3:80", 5)], &[FIRST, SECOND, "c 10.0.0.3:80 5 up"]);
    check(&[set("b", Some(9), None)], &[FIRST, "b 10.0.0.2:80 9 up"]);
    check(&[set("b", None, Some(Duty::Draining))], &[FIRST, "b 10.0.0.2:80 3 draining"]);
    check(&[remove("b")], &[FIRST]);
    check(
        &[add("c", "10.0.0.3:80", 5), remove("b"), remove("10.0.0.1:80")],
        &["c 10.0.0.3:80 5 up"],
    );
}

#[test]
fn orders_follow_each_other() {
    let down = set("b", Some(9), Some(Duty::Maintenance));
    check(&[down.clone(), set("b", Some(2), None)], &[FIRST, "b 10.0.0.2:80 2 maintenance"]);
    let back = [down, set("b", Some(3), Some(Duty::Up))];
    check(&back, &[FIRST, SECOND]);
    assert_eq!(after(TEXT, &back).overlay, Overlay::default(), "it is as configured");
    let added = [add("c", "10.0.0.3:80", 5), set("c", None, Some(Duty::Draining))];
    check(&added, &[FIRST, SECOND, "c 10.0.0.3:80 5 draining"]);
    let gone = [add("c", "10.0.0.3:80", 5), remove("c")];
    check(&gone, &[FIRST, SECOND]);
    assert_eq!(after(TEXT, &gone).overlay, Overlay::default());
    let again = [remove("b"), add("b", "10.0.0.2:80", 7)];
    check(&again, &[FIRST, "b 10.0.0.2:80 7 up"]);
    // The name goes to another server.
    check(&[remove("b"), add("b", "10.0.0.9:80", 1)], &[FIRST, "b 10.0.0.9:80 1 up"]);
}

#[test]
fn an_order_that_no_check_would_take_is_refused() {
    let at = |layers: &Layers, order: &Order| layers.amend(order).unwrap_err().to_string();
    let first = layers(TEXT);
    for (order, words) in [
        (add("b", "10.0.0.3:80", 1), "has a backend \"b\" already"),
        (add("c", "10.0.0.2:80", 1), "has 10.0.0.2:80 already, as backend \"b\""),
        (add("", "10.0.0.3:80", 1), "cannot be the name"),
        (add("a/b", "10.0.0.3:80", 1), "cannot be the name"),
        (add("c", "10.0.0.3:0", 1), "needs a port"),
        (add("c", "10.0.0.3:80", 257), "0 to 256"),
        (set("c", Some(1), None), "has no backend \"c\""),
        (set("b", Some(257), None), "0 to 256"),
        (remove("c"), "has no backend \"c\""),
        (Order::Remove { pool: "none".into(), backend: "b".into() }, "there is no pool \"none\""),
        (
            Order::Remove { pool: "other".into(), backend: "10.0.0.1:80".into() },
            "the last backend of pool \"other\"",
        ),
    ] {
        let said = at(&first, &order);
        assert!(said.contains(words), "{order:?}: {said}");
    }
    let none_left = after(TEXT, &[remove("b")]);
    assert!(at(&none_left, &remove("10.0.0.1:80")).contains("last backend"));
    let mut full = layers(TEXT);
    for port in 1..=BACKENDS_MAX - 2 {
        let order = add(&format!("n{port}"), &format!("10.1.0.1:{port}"), 1);
        let Order::Add { pool, backend, address, .. } = order else { unreachable!() };
        let subject = Subject { pool, backend, address };
        full.overlay.changes.insert(subject, Amendment::Added(Settings::default()));
    }
    assert!(at(&full, &add("one", "10.0.0.3:80", 1)).contains("which is the most"));
}

#[test]
fn a_later_configuration_keeps_what_fits_and_names_the_rest() {
    let orders = [
        add("c", "10.0.0.3:80", 5),
        add("d", "10.0.0.4:80", 5),
        set("d", None, Some(Duty::Draining)),
        set("10.0.0.1:80", Some(7), None),
        remove("b"),
    ];
    let before = after(TEXT, &orders);
    let with = |text: &str| Layers { overlay: before.overlay.clone(), ..layers(text) };
    let said = |layers: &Layers| {
        let Composed { plan, overlay, misfits, .. } = layers.compose();
        // What is kept fits by itself.
        let again = Layers { overlay: overlay.clone(), ..layers.clone() }.compose();
        assert_eq!((again.misfits.len(), &again.overlay), (0, &overlay));
        assert_eq!(seen(&again.plan), seen(&plan));
        (seen(&plan), misfits.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let pool = |backends: &str| {
        format!(
            "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
             [pool.app]\nbackends = [{backends}]\n"
        )
    };
    // `b` is another server now, `c` was added to the configuration, the first has left it.
    let next = with(&pool(
        "{ address = \"10.0.0.9:80\", name = \"b\" }, { address = \"10.0.0.3:80\", name = \"c\" }",
    ));
    let (plan, misfits) = said(&next);
    assert_eq!(plan, ["b 10.0.0.9:80 1 up", "c 10.0.0.3:80 1 up", "d 10.0.0.4:80 5 draining"]);
    assert_eq!(
        misfits,
        [
            "backend \"c\" of pool \"app\": it was added, and the configuration has it now",
            "backend \"b\" of pool \"app\": it is not at 10.0.0.2:80 any more",
            "backend \"10.0.0.1:80\" of pool \"app\": the configuration has no such backend",
        ]
    );
    // One that drains is not given traffic by a configuration that has it now.
    let next = with(&pool("\"10.0.0.1:80\", { address = \"10.0.0.4:80\", name = \"d\" }"));
    let (plan, misfits) = said(&next);
    let expected =
        ["10.0.0.1:80 10.0.0.1:80 7 up", "c 10.0.0.3:80 5 up", "d 10.0.0.4:80 1 draining"];
    assert_eq!(plan, expected);
    assert_eq!(misfits, ["backend \"b\" of pool \"app\": the configuration has no such backend"]);
    let Composed { misfits, overlay, .. } = with(&TEXT.replace("app", "web")).compose();
    assert_eq!((misfits.len(), overlay.changes.len()), (4, 0));
    assert!(misfits.iter().all(|it| it.why == Why::NoPool), "{misfits:?}");
}

#[test]
fn a_removal_that_would_leave_nothing_does_not_fit() {
    let before = after(TEXT, &[remove("b")]);
    let text = TEXT.replace("\"10.0.0.1:80\", {", "{");
    let Composed { plan, overlay, misfits, .. } =
        Layers { overlay: before.overlay, ..layers(&text) }.compose();
    assert_eq!((seen(&plan), overlay.changes.len()), (vec![SECOND.to_owned()], 0));
    assert_eq!(misfits[0].why, Why::Last);
}

const NAMES: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    pool = "app"
    [pool.app]
    backends = [{ address = "a.test:80", weight = 3, max-in-flight = 5 }, "10.0.0.9:80"]
    resolve = "5s"
    [pool.other]
    backends = [{ address = "a.test:80", name = "b", backup = true }, "c.test:80", "localhost:80"]
    resolve = "2s"
"#;

fn found(addresses: &[&str]) -> Arc<[Found]> {
    let found = |text: &&str| Found { at: text.parse().unwrap(), service: None };
    addresses.iter().map(found).collect()
}

/// Layers in which `a.test` has these addresses.
fn named(addresses: &[&str]) -> Layers {
    let mut layers = layers(NAMES);
    let name = Address::Name { host: "a.test".into(), port: 80 };
    if !addresses.is_empty() {
        layers.members.insert(name, found(addresses));
    }
    layers
}

fn seen_of(plan: &Plan, pool: &str) -> Vec<String> {
    let pool = plan.pools.values().find(|it| it.name == pool).unwrap();
    let line = |it: &Backend| format!("{} {} {}", it.name, it.weight, it.duty.word());
    pool.backends.values().map(line).collect()
}

#[test]
fn each_address_of_a_name_is_a_backend_with_the_keys_of_its_entry() {
    let Composed { plan, surplus, .. } = named(&["10.0.0.1:80", "10.0.0.2:80"]).compose();
    assert_eq!(
        seen_of(&plan, "app"),
        ["a.test:80#10.0.0.1 3 up", "a.test:80#10.0.0.2 3 up", "10.0.0.9:80 1 up"]
    );
    assert_eq!(
        seen_of(&plan, "other"),
        ["b#10.0.0.1 1 up", "b#10.0.0.2 1 up", "c.test:80 1 up", "localhost:80 1 up"]
    );
    assert!(surplus.is_empty());
    let pool = |name: &str| plan.pools.values().find(|it| it.name == name).unwrap();
    let all: Vec<&Backend> = pool("app").backends.values().take(2).collect();
    for (backend, at) in all.into_iter().zip(["10.0.0.1:80", "10.0.0.2:80"]) {
        assert_eq!(backend.address, address(at));
        assert_eq!((backend.in_flight_max, &*backend.identity()), (5, at));
        assert_eq!((&*backend.authority(), &*backend.host()), ("a.test:80", "a.test"));
    }
    assert!(pool("other").backends.values().take(2).all(|backend| backend.backup));
}

#[test]
fn a_server_is_in_a_pool_once_and_surplus_ones_are_counted() {
    let Composed { plan, .. } = named(&["10.0.0.1:80", "10.0.0.9:80"]).compose();
    assert_eq!(seen_of(&plan, "app"), ["a.test:80#10.0.0.1 3 up", "10.0.0.9:80 1 up"]);
    let many: Vec<String> =
        (0..1_030).map(|number| format!("10.1.{}.{}:80", number / 256, number % 256)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let Composed { plan, surplus, .. } = named(&many).compose();
    let count = |name: &str| plan.pools.values().find(|it| it.name == name).unwrap().backends.len();
    assert_eq!((count("app"), count("other")), (BACKENDS_MAX, BACKENDS_MAX));
    assert_eq!(surplus, [("app".into(), 7), ("other".into(), 8)].into());
    assert!(seen_of(&plan, "app").contains(&"10.0.0.9:80 1 up".to_owned()));
}

#[test]
fn each_name_is_looked_up_once_for_all_who_want_it() {
    let said = |layers: &Layers| {
        let one = |(address, want): (&Address, &Want)| {
            let by = want.by.iter().map(|(pool, backend)| format!(" {pool}/{backend}"));
            format!("{address} {:?}{}", want.resolve, by.collect::<String>())
        };
        layers.wanted().iter().map(one).collect::<Vec<_>>()
    };
    let expected = ["a.test:80 2s app/a.test:80 other/b", "c.test:80 2s other/c.test:80"];
    assert_eq!(said(&named(&["10.0.0.1:80"])), expected);
    let mut layers = named(&[]);
    layers.overlay = layers.amend(&remove("a.test:80")).unwrap();
    let new = Order::Add {
        pool: "app".into(),
        backend: "d".into(),
        address: Address::Name { host: "d.test".into(), port: 80 },
        weight: 1,
    };
    layers.overlay = layers.amend(&new).unwrap();
    let expected = ["a.test:80 2s other/b", "c.test:80 2s other/c.test:80", "d.test:80 5s app/d"];
    assert_eq!(said(&layers), expected);
}

#[test]
fn orders_may_be_about_a_name_or_about_one_of_its_addresses() {
    let both = ["10.0.0.1:80", "10.0.0.2:80"];
    let check = |orders: &[Order], expected: &[&str]| {
        let mut layers = named(&both);
        for order in orders {
            layers.overlay = layers.amend(order).unwrap_or_else(|why| panic!("{order:?}: {why}"));
        }
        let Composed { plan, misfits, overlay, .. } = layers.compose();
        assert_eq!((&*misfits, &overlay), (&[][..], &layers.overlay));
        assert_eq!(seen_of(&plan, "app"), expected, "{orders:?}");
        layers
    };
    let (one, all) = ("a.test:80#10.0.0.1", "a.test:80");
    let (first, second, ninth) =
        ("a.test:80#10.0.0.1 3 up", "a.test:80#10.0.0.2 3 up", "10.0.0.9:80 1 up");
    check(
        &[set(one, Some(7), Some(Duty::Draining))],
        &["a.test:80#10.0.0.1 7 draining", second, ninth],
    );
    let back = [set(one, Some(7), None), set(one, Some(3), Some(Duty::Up))];
    assert_eq!(check(&back, &[first, second, ninth]).overlay, Overlay::default());
    check(
        &[set(all, Some(4), Some(Duty::Draining)), set(one, None, Some(Duty::Up))],
        &["a.test:80#10.0.0.1 4 up", "a.test:80#10.0.0.2 4 draining", ninth],
    );
    check(&[remove(all)], &[ninth]);
    let layers = check(&[remove(one)], &[second, ninth]);
    let refused = |layers: &Layers, order: &Order| layers.amend(order).unwrap_err().to_string();
    assert!(refused(&layers, &remove(one)).contains("has no backend"));
    assert!(refused(&layers, &add(all, "10.0.0.5:80", 1)).contains("has a backend"));
    assert!(refused(&layers, &add("x", "10.0.0.2:80", 1)).contains("as backend \"a.test:80#"));
    // It is added by its address.
    check(&[remove(one), add("x", "10.0.0.1:80", 2)], &[second, ninth, "x 2 up"]);
}

#[test]
fn a_change_of_an_address_that_is_not_there_waits_for_it_as_long_as_the_name_is_there() {
    let mut layers = named(&["10.0.0.1:80", "10.0.0.2:80"]);
    layers.overlay = layers.amend(&set("a.test:80#10.0.0.1", Some(7), None)).unwrap();
    let overlay = layers.overlay.clone();
    for members in [&["10.0.0.2:80"][..], &[], &["10.0.0.1:80"]] {
        let Composed { overlay: kept, misfits, .. } =
            Layers { overlay: overlay.clone(), ..named(members) }.compose();
        assert_eq!((&kept, &*misfits), (&overlay, &[][..]), "{members:?}");
    }
    assert_eq!(
        seen_of(
            &Layers { overlay: overlay.clone(), ..named(&["10.0.0.1:80"]) }.compose().plan,
            "app"
        ),
        ["a.test:80#10.0.0.1 7 up", "10.0.0.9:80 1 up"]
    );
    let base = layers_without_the_name();
    let Composed { misfits, .. } = Layers { base, ..layers }.compose();
    assert_eq!(misfits[0].why, Why::NoBackend);
}

fn layers_without_the_name() -> Arc<Plan> {
    layers(&NAMES.replace("a.test:80", "z.test:80")).base
}

/// Orders of all kinds between answers of all kinds; the seed is in the message.
#[test]
fn whatever_is_ordered_and_answered_the_plan_is_one_that_a_check_would_take() {
    for seed in 0..300 {
        let mut rng = Rng::seeded(seed);
        let mut layers = named(&[]);
        for step in 0..30 {
            happens(&mut layers, &mut rng);
            let Composed { plan, overlay, misfits, .. } = layers.compose();
            assert_eq!((&overlay, &*misfits), (&layers.overlay, &[][..]), "seed {seed}, {step}");
            for pool in plan.pools.values() {
                let (mut names, mut at) = (HashSet::new(), HashSet::new());
                for backend in pool.backends.values() {
                    let is_new = names.insert(&backend.name) && at.insert(&backend.address);
                    assert!(is_new, "seed {seed}, {step}: {backend:?}");
                }
            }
        }
    }
}

fn happens(layers: &mut Layers, rng: &mut Rng) {
    let last = |rng: &mut Rng| 1 + rng.below(4);
    if rng.below(3) == 0 {
        let all: Vec<String> =
            (0..rng.below(4)).map(|_| format!("10.0.0.{}:80", last(rng))).collect();
        let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        layers.members = named(&all).members;
        return;
    }
    let at = format!("10.0.0.{}:80", last(rng));
    let name = match rng.below(5) {
        0 => "a.test:80".to_owned(),
        1 => "10.0.0.9:80".to_owned(),
        2 => at.clone(),
        _ => format!("a.test:80#10.0.0.{}", last(rng)),
    };
    let order = match rng.below(4) {
        0 => add(&at, &at, 2),
        1 => remove(&name),
        2 => set(&name, Some(u16::try_from(rng.below(4)).unwrap()), None),
        _ => set(&name, None, Some(Duty::ALL[rng.below(3) as usize])),
    };
    // What no check would take is refused.
    if let Ok(overlay) = layers.amend(&order) {
        layers.overlay = overlay;
    }
}
