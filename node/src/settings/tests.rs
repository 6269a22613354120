//! Which layer has the last word, what is said of each mistake, and that the example file tells the truth.

use std::path::Path;

use super::{file::File, show::Entry, *};

const ID: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let file = "max_connections = 10\nrelay = \"default\"\nprobe_interval = \"1m\"\n[limits]\ndials_max = 1\ninbound_max = 5\n";
    let variables = [("max_connections", "20"), ("relay", "disabled"), ("limit", "dials_max=2 retry_above=3")];
    let flags = [("max_connections", "30"), ("limit", "dials_max=4")];
    let settings = merge(file, &variables, &flags).unwrap();
    assert_eq!((settings.max_connections.0, &settings.max_connections.source), (30, &Source::Flag));
    assert_eq!((&settings.relay.value, &settings.relay.source), (&RelayName::Disabled, &Source::Variable));
    assert_eq!((settings.probe_interval.as_secs(), &settings.probe_interval.source), (60, &at(3)));
    assert_eq!((settings.idle_timeout.as_secs(), &settings.idle_timeout.source), (10, &Source::Default));
    let limits: Vec<_> =
        settings.limits.iter().map(|(name, limit)| (*name, limit.value, limit.source.clone())).collect();
    let expected = [("dials_max", 4, Source::Flag), ("inbound_max", 5, at(6)), ("retry_above", 3, Source::Variable)];
    assert_eq!(limits, expected);
}

#[test]
fn a_list_replaces_the_list_below_it() {
    let file = "topic = [\"a\", \"two words\"]\nlisten = [\"127.0.0.1:1\"]\n";
    let settings = merge(file, &[("listen", " 127.0.0.1  127.0.0.2,max-connections=3 ")], &[]).unwrap();
    let topics: Vec<String> = settings.topic.iter().map(ToString::to_string).collect();
    assert_eq!(topics, ["a", "two words"]);
    assert_eq!((settings.listen.len(), settings.listen[1].connections_max), (2, Some(3)));
    let settings = merge(file, &[], &[("topic", "two words")]).unwrap();
    assert_eq!(settings.topic.len(), 1, "a flag is one value, white space and all");
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_line_and_what_would_be_right() {
    let file = "lisen = [\"127.0.0.1\"]\nmax_connections = \"many\"\nport_mapping = 1\nlisten = [\n  \"127.0.0.1\",\n  7,\n]\n\
                known = \"x\"\nidle_timeout = 5\nmemory_budget = \"512MB\"\njoin = [\"hello\"]\ncontrol = true\n\
                [limits]\ninbuond_max = 3\ndials_max = \"3\"\nretry_above = -1\n[gossip]\n";
    let problems = merge(file, &[("access", "closed")], &[("relay", "relay.example")]).unwrap_err();
    let sentences: Vec<&str> = problems.iter().map(|problem| problem.sentence.as_str()).collect();
    let expected = [
        "c.toml:17: `gossip` is no setting; there are: listen, topic, join, key_file, state_dir, control, http, \
         http_token_file, relay, port_mapping, known, deny, access, max_connections, memory_budget, count_loopback, \
         idle_timeout, probe_interval, log, log_format, otlp, otlp_protocol, limits",
        "c.toml:1: `lisen` is no setting; did you mean `listen`?",
        "c.toml:6: listen is a number; \"0.0.0.0:4433\" would be right",
        "c.toml:11: join: `hello` is neither a ticket, nor ID@IP:PORT, nor an id of 64 hex digits",
        "c.toml:12: control is true or false; a text that is a path, as in \"/run/perennial/control.sock,max-connections=16\" would \
         be right",
        "--relay: `relay.example` is not a relay; expected default, disabled, or a URL with https://",
        "c.toml:3: port_mapping is a number; true or false, without quotes, would be right",
        "c.toml:8: known is a text; a list such as [\"ID@192.0.2.1:4433\"] would be right",
        "PERENNIAL_ACCESS: `closed` is not who may connect; expected open or known",
        "c.toml:2: max_connections is a text; a whole number such as 128 would be right",
        "c.toml:10: memory_budget: `512MB` is not a size; expected bytes, or a whole number of KiB, MiB or GiB, such as 512MiB",
        "c.toml:9: idle_timeout is a number; a text such as \"5s\" or \"500ms\" would be right",
        "c.toml:15: limits.dials_max is a text; a whole number such as 128 would be right",
        "c.toml:14: `inbuond_max` is no limit that can be set; did you mean `inbound_max`?",
        "c.toml:16: limits.retry_above: `-1` cannot be; a whole number such as 128 would be right",
    ];
    assert_eq!(sentences, expected);
    assert_eq!(failure(&problems).exit, Exit::Config);
}

#[test]
fn a_mistake_of_the_command_line_alone_is_one_of_usage() {
    let problems = merge("", &[], &[("max_connections", "0")]).unwrap_err();
    let failure = failure(&problems);
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(failure.sentence, "--max-connections: 0 is no number of connections; expected 1 or more, such as 128");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let problems = merge("topic = [\"a\"]\nrelay = disabled\nrelay = \"default\"\n", &[], &[]).unwrap_err();
    assert!(problems[0].sentence.starts_with("c.toml:2: no TOML: "), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.sentence.starts_with("c.toml:3: no TOML: ")), "{problems:?}");
}

#[test]
fn a_contradiction_names_both_where_they_stand() {
    let file = format!("known = [\"{ID}\"]\nmax_connections = 64\n[limits]\nconnections_max = 64\n");
    let settings = merge(&file, &[], &[("deny", ID)]).unwrap();
    let problems = settings.builder(None).unwrap_err();
    let sentences: Vec<&str> = problems.iter().map(|problem| problem.sentence.as_str()).collect();
    let expected = [
        "ae58ff8833 is named by known (c.toml:1) and by --deny; leave out one",
        "max_connections (c.toml:2) 64 and limits.connections_max = 64 (c.toml:4) set the same limit; the first one sets its \
         shares as well",
    ];
    assert_eq!(sentences, expected);
}

#[test]
fn the_example_names_every_setting_with_its_real_default() {
    let text = crate::config::EXAMPLE;
    let is_setting = |line: &&str| line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase());
    let uncommented: Vec<&str> = text.lines().map(|line| if is_setting(&line) { &line[1..] } else { line }).collect();
    let mut uncommented = uncommented.join("\n");
    // The two set the same limit.
    uncommented = uncommented.replace("\nmax_connections = 128", "\n");
    let example = merge(&uncommented, &[], &[]).unwrap();
    let defaults = entries(&merge("", &[], &[]).unwrap());
    for (shown, default) in entries(&example).iter().zip(&defaults) {
        assert_eq!(shown.name, default.name);
        let is_there = shown.name == "max_connections" || matches!(shown.source, Source::File(_));
        assert!(is_there, "{} is missing in the example", shown.name);
        assert!(default.value.is_null() || shown.value == default.value, "{shown:?} is not {default:?}");
    }
    assert!(text.contains("\n#max_connections = 128\n"));
    assert_eq!(Limits::default().connections_max, 128);
    assert!(text.lines().all(|line| line.is_empty() || line == "[limits]" || line.starts_with('#')));
    assert!(merge(text, &[], &[]).unwrap().builder(None).is_ok(), "as it is, it sets nothing");
}

#[test]
fn what_is_shown_as_toml_reads_back_as_the_same() {
    let file = format!(
        "topic = [\"a \\\"b\\\"\"]\nknown = [\"{ID}@127.0.0.1:7,[::1]:8\"]\nlisten = [\"[::1]:7,max-connections=2\"]\n\
         memory_budget = \"1GiB\"\nmax_connections = 64\nidle_timeout = \"1500ms\"\n[limits]\ndials_max = 3\n"
    );
    let settings = merge(&file, &[], &[("log", "debug")]).unwrap();
    let shown = show::to_toml(&entries(&settings));
    assert!(shown.contains("log = \"debug\"  # --log\n") && shown.contains("dials_max = 3  # c.toml:8"), "{shown}");
    let again = merge(&shown, &[], &[]).unwrap();
    let values = |settings: &Settings| entries(settings).into_iter().map(|entry| (entry.name, entry.value)).collect();
    let (before, after): (Vec<_>, Vec<_>) = (values(&settings), values(&again));
    assert_eq!(before, after);
}

fn merge(
    file: &str,
    variables: &[(&'static str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Settings, Vec<Problem>> {
    let words = |given: &[(&'static str, &str)]| -> Words {
        given.iter().map(|(name, word)| (*name, vec![(*word).to_owned()])).collect()
    };
    let file = File::parse(Path::new("c.toml"), file)?;
    Settings::merge(Layers { flags: &words(flags), variables: &words(variables), file: Some(&file) })
}

fn entries(settings: &Settings) -> Vec<Entry> {
    settings.all_entries().unwrap()
}

fn at(line: usize) -> Source {
    Source::File(Place { path: Path::new("c.toml").into(), line })
}
