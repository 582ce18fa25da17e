//! Whose lines are wanted, an instance's or a program's, and how each of them is called.

use anyhow::Result;

use super::look::Label;
use crate::app::{App, Instance};
use crate::harmless::harmless_line;
use crate::logfile::{self, Line, OWN};
use crate::outcome::usage;

/// Whose lines are wanted.
pub struct Name {
    instance: Instance,
    /// Which of the two it is.
    place: usize,
    /// The program that was named, or the worker, of which there may be several.
    program: Option<String>,
    /// All programs of an instance.
    programs: Vec<String>,
    /// How much a line must tell about where it comes from.
    detail: Detail,
}

enum Detail {
    Nothing,
    Instance,
    Program,
}

impl Name {
    /// An instance beside the other.
    pub fn of_one_of_both(app: &App, instance: &Instance) -> Name {
        let programs = programs(app, instance);
        let detail = if programs.len() > 1 { Detail::Program } else { Detail::Instance };
        Name { instance: instance.clone(), place: place(app, instance), program: None, programs, detail }
    }

    /// What an argument means: an instance, or behind a dot one of its programs, or all workers of a name.
    pub fn meant_by(app: &App, argument: &str) -> Result<Name> {
        let (instance, program) = match argument.split_once('.') {
            Some((instance, program)) => (instance, Some(program)),
            None => (argument, None),
        };
        let instance = app.instance(instance).map_err(|error| misnamed(app, argument).unwrap_or(error))?;
        let programs = programs(app, instance);
        let is_meant = |name: &&String| program.is_none_or(|program| logfile::is_or_is_one_of(name, program));
        let count = programs.iter().filter(is_meant).count();
        if count == 0 {
            let reason = format!("of {instance} there are {}", programs.join(", "));
            return Err(usage(format!("cannot find program {:?}: {reason}", program.unwrap_or_default())));
        }
        // Of the only program there is, all lines are.
        let program = program.filter(|_| programs.len() > 1).map(str::to_owned);
        let detail = if count > 1 { Detail::Program } else { Detail::Nothing };
        Ok(Name { instance: instance.clone(), place: place(app, instance), program, programs, detail })
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The program, or the worker, of which there may be several; None: all lines of the instance are wanted.
    pub fn program(&self) -> Option<&String> {
        self.program.as_ref()
    }

    /// What stands in front of a line; None: nothing.
    pub fn label(&self, line: &Line) -> Option<Label> {
        let source = match self.detail {
            Detail::Nothing => return None,
            Detail::Program if line.source != OWN => line.source.as_str(),
            Detail::Program | Detail::Instance => "",
        };
        let text = if source.is_empty() {
            self.instance.to_string()
        } else {
            format!("{}.{}", self.instance, harmless_line(source))
        };
        let known = self.programs.iter().position(|program| program == source).unwrap_or(self.programs.len());
        let program = if source.is_empty() { 0 } else { known + 1 };
        Some(Label { text, instance: self.place, program })
    }
}

/// What to say to somebody who names a program without its instance; None: nobody did.
fn misnamed(app: &App, argument: &str) -> Option<anyhow::Error> {
    let is_program = app.config.programs().iter().any(|name| logfile::is_or_is_one_of(name, argument));
    let [first, second] = &app.config.instances;
    let how = format!("of program {argument}: say {first}.{argument} or {second}.{argument}");
    is_program.then(|| usage(format!("cannot tell which instance's lines are wanted {how}")))
}

/// The programs that an instance runs. Lines can be shown whatever is wrong with its settings.
fn programs(app: &App, instance: &Instance) -> Vec<String> {
    app.as_run(instance).map_or_else(|_| app.config.programs(), |app| app.config.programs())
}

fn place(app: &App, instance: &Instance) -> usize {
    app.config.instances.iter().position(|other| other == instance).unwrap_or(0)
}
