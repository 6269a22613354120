//! The settings file, the variables beside it, and the verb `config`.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::process::{Up, perennial, run_expecting, text};

const ID: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "max_connections = 10\nrelay = \"default\"\naccess = \"known\"\n[limits]\ndials_max = 5\n")
        .unwrap();
    let output = perennial(dir.path())
        .args(["config", "show", "--format", "json", "--max-connections", "30", "--port-mapping=false"])
        .arg("--config")
        .arg(&file)
        .envs([("PERENNIAL_MAX_CONNECTIONS", "20"), ("PERENNIAL_RELAY", "disabled"), ("PERENNIAL_KNOWN", "")])
        .env("IROH_SECRET", "a".repeat(64))
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(shown["v"], 1);
    let setting = |name: &str| shown["settings"][name].clone();
    let row = |value: Value, source: &str, from: &str| json!({"value": value, "source": source, "from": from});
    let line = |number: usize| format!("{}:{number}", file.display());
    assert_eq!(setting("max_connections"), row(json!(30), "flag", "--max-connections"));
    assert_eq!(setting("relay"), row(json!("disabled"), "variable", "PERENNIAL_RELAY"));
    assert_eq!(setting("access"), row(json!("known"), "file", &line(3)));
    assert_eq!(setting("limits.dials_max"), row(json!(5), "file", &line(5)));
    assert_eq!(setting("limits.inbound_max"), row(json!(23), "default", "default"), "it follows from the connections");
    assert_eq!(setting("known"), row(json!([]), "default", "default"), "an empty variable is none");
    assert_eq!(setting("state_dir"), row(Value::Null, "default", "default"));
    assert_eq!(setting("port_mapping")["source"], "flag");
    assert!(!text(&output.stdout).contains("aaaa"), "secrets are not settings");
}

#[test]
fn a_node_lives_by_its_file_and_its_variables() {
    let dir = tempfile::tempdir().unwrap();
    let other = Up::json(dir.path(), &["--topic", "chat"]);
    let file = dir.path().join("node.toml");
    let content = format!(
        "topic = [\"chat\"]\njoin = [\"{}\"]\nmax_connections = 40\nlisten = [\"127.0.0.1,max-connections=9\"]\n\
         key_file = \"{}\"\n[limits]\ndials_max = 7\n",
        other.ticket(),
        dir.path().join("key").display()
    );
    fs::write(&file, content).unwrap();
    let variables =
        [("PERENNIAL_CONFIG", file.to_str().unwrap()), ("PERENNIAL_LIMIT", "retry_above=3 speculative_max=6")];
    let mut up = Up::json_in(dir.path(), &variables, &["--idle-timeout", "5s"]);
    up.event("neighbor_up", |event| event["peer"] == other.id());
    assert!(dir.path().join("key").exists());
    let page = up.ask_json(&["limits"]);
    let max = |list: &str, name: &str| {
        let rows = page[list].as_array().unwrap();
        rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name)).expect("it is there")["max"].clone()
    };
    assert_eq!((max("limits", "connections_max"), max("limits", "inbound_max")), (json!(40), json!(30)));
    let limits = ["dials_max", "retry_above", "speculative_max"].map(|name| max("limits", name));
    assert_eq!(limits, [7, 3, 6].map(|number| json!(number)));
    assert_eq!(max("listeners", "127.0.0.1"), 9);
}

#[test]
fn the_file_is_looked_for_in_the_usual_places() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (of_xdg, of_home) = (dir.path().join("xdg/perennial"), home.join(".config/perennial"));
    for (folder, content) in [(&of_xdg, "max_connections = 11\n"), (&of_home, "max_connections = 12\n")] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("config.toml"), content).unwrap();
    }
    let shown = |xdg: &Path| {
        let mut command = perennial(dir.path());
        command.env_remove("PERENNIAL_CONFIG").env("HOME", &home).env("XDG_CONFIG_HOME", xdg);
        text(&command.args(["config", "show"]).output().unwrap().stdout)
    };
    assert!(shown(&dir.path().join("xdg")).contains(&format!("= 11  # {}:1", of_xdg.join("config.toml").display())));
    assert!(shown(Path::new("")).contains("max_connections = 12"));
    let missing = dir.path().join("missing.toml");
    for args in [["config", "check", missing.to_str().unwrap()], ["up", "-c", missing.to_str().unwrap()]] {
        assert!(text(&run_expecting(dir.path(), 78, &args).stderr).contains("there is no settings file"));
    }
}

#[test]
fn everything_that_is_wrong_with_a_file_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let path = file.to_str().unwrap();
    let check = |content: &str, code| -> Output {
        fs::write(&file, content).unwrap();
        run_expecting(dir.path(), code, &["config", "check", path])
    };
    assert_eq!(text(&check("", 0).stdout), format!("{path}: ok\n"));
    let cases = [
        ("max_conections = 3", "1: `max_conections` is no setting; did you mean `max_connections`?"),
        ("state_dri = \"x\"", "1: `state_dri` is no setting; did you mean `state_dir`?"),
        ("\n[limits]\ninbuond_max = 3", "3: `inbuond_max` is no limit that can be set; did you mean `inbound_max`?"),
        ("idle_timeout = 5", "1: idle_timeout is a number; a text such as \"5s\" or \"500ms\" would be right"),
        ("memory_budget = \"512MB\"", "1: memory_budget: `512MB` is not a size; expected"),
        ("listen = \"0.0.0.0\"", "1: listen is a text; a list such as [\"0.0.0.0:4433\"] would be right"),
        ("max_connections = 0", "1: max_connections: 0 is no number of connections"),
        ("log = \"a=b=c\"", "1: log: `a=b=c` is not a log filter"),
        ("limits = 3", "1: limits is a number; a table [limits] with one line for each would be right"),
        ("topic = [", "no TOML"),
        ("memory_budget = \"1MiB\"", "memory_budget of 1048576 bytes is less than 67108864"),
        ("[limits]\ninbound_max = 500", "inbound_max of 500 exceeds connections_max of 128"),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listen (FILE:1) 127.0.0.1:1 is given twice"),
        (
            "listen = [\"127.0.0.1,max-connections=97\"]",
            "max-connections of 97 at 127.0.0.1:0 exceeds inbound_max of 96",
        ),
        ("otlp = \"collector:4317\"", "otlp (FILE:1): `collector:4317` is no address of a collector; http://"),
        (
            "otlp = \"https://a:4318\"\notlp_protocol = \"http/protobuf\"",
            "otlp (FILE:1): `https://a:4318/v1/traces`: TLS is spoken with the protocol grpc only",
        ),
        ("access = \"known\"", "access (FILE:1) known admits nobody"),
        ("join = [\"ID\"]", "join (FILE:1) names whom to meet, but not where; name a topic"),
        ("known = [\"ID\"]\ndeny = [\"ID\"]", "is named by known (FILE:1) and by deny (FILE:2); leave out one"),
    ];
    for (content, sentence) in cases {
        let output = check(&content.replace("ID", ID), 78);
        let (said, sentence) = (text(&output.stderr), sentence.replace("FILE", path));
        assert!(said.contains(&sentence), "{content}: {said:?} does not say {sentence:?}");
        assert!(said.lines().all(|line| line.starts_with("error: ")) && output.stdout.is_empty(), "{said}");
        assert_eq!(text(&run_expecting(dir.path(), 78, &["up", "--config", path]).stderr), said, "`up` says the same");
    }
    let several = text(&check("lisen = []\nrelay = 3\nmax_connections = \"3\"\n", 78).stderr);
    assert_eq!(several.lines().count(), 3, "{several}");
}

#[test]
fn the_default_file_is_one_that_sets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let default = text(&run_expecting(dir.path(), 0, &["config", "default"]).stdout);
    let file = dir.path().join("node.toml");
    fs::write(&file, &default).unwrap();
    run_expecting(dir.path(), 0, &["config", "check", file.to_str().unwrap()]);
    let shown = |args: &[&str]| text(&run_expecting(dir.path(), 0, &[&["config", "show"], args].concat()).stdout);
    assert_eq!(shown(&["--config", file.to_str().unwrap()]), shown(&[]));
}
