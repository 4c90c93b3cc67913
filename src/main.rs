//! The binary: a stand-in until the command line lands.

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut over = ringway::config::Overrides::default();
    let mut file = String::new();
    let mut i = 1;
    while i < args.len() {
        match args[i].as_str() {
            "-c" => {
                file = args[i + 1].clone();
                i += 1;
            }
            "--cores" => {
                over.text("global.cores", &args[i + 1], "--cores");
                i += 1;
            }
            "--driver" => {
                over.text("global.driver", &args[i + 1], "--driver");
                i += 1;
            }
            _ => {}
        }
        i += 1;
    }
    let loaded = match ringway::config::load(&[file.into()], &over) {
        Ok(l) => l,
        Err(p) => {
            eprintln!("{}", p.render(false));
            std::process::exit(1);
        }
    };
    if let Err(e) = ringway::server::main(loaded.plan) {
        eprintln!("ringway: {e}");
        std::process::exit(1);
    }
}
