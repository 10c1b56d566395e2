//! `Crew`: the vCPUs of a machine that has several, each on a thread of its own.
//!
//! The first vCPU runs on the thread of whoever runs the machine; for each of the others a thread lives as long as the
//! run, or a piece of it ([`Session`](crate::session)). All run the same loop. What a vCPU does beside that is its life:
//!
//! ```text
//!             StartCpu, by one that runs          HLT
//! Unstarted ────────────────────────────► Runs ─────────► Halted ──┐
//!   waits     its own thread sets           ▲             waits    │ StartCpu
//!             the registers and answers     └──────────────────────┘
//! ```
//!
//! A CPU that waits costs no time: its thread sleeps here, not in KVM_RUN. No interrupt could wake a halted CPU, so to halt
//! is to be done, until another CPU starts it anew. When all have halted the run is over, and the first vCPU's HLT is
//! told.
//!
//! Where there are interrupt controllers KVM keeps these lives, as CPUs may start and wake one another by interrupts: the
//! thread of a vCPU sleeps in KVM_RUN until INIT and SIPI have come, and HLT is no exit. `StartCpu` is still there. It
//! kicks the thread, which looks whether its CPU still waits.
//!
//! Whatever else ends the loop of one vCPU ends it for all. The first end counts, and its vCPU is the one that is named; if
//! it was asked for from outside, the lowest that runs. The others are recalled ([`StopHandle`](crate::stop)): they come
//! out of KVM_RUN and stand where they are, so that all can be looked at, and can go on should there be another piece.
//!
//! With one vCPU there is no crew, no thread and no lock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::{io, iter};

use serde::{Deserialize, Serialize};
use shared_abi::HypercallError;

use crate::boot::cpu_mode::{CpuMode, LongMode};
use crate::cpus::{VcpuCount, VcpuId};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::next::StopReason;
use crate::observe::{ExitCounts, Observer, Shared};
use crate::run_loop;
use crate::stop::StopHandle;
use crate::vcpu::Vcpu;

/// What the vCPUs of a machine know of one another.
#[derive(Debug)]
pub struct Crew {
    state: Mutex<State>,
    /// A life has changed, or the piece has ended.
    changed: Condvar,
    /// Whether KVM starts, halts and wakes vCPUs: there are interrupt controllers.
    is_kvms: bool,
}

#[derive(Debug)]
struct State {
    /// Of each vCPU.
    members: Vec<Member>,
    /// How this piece has ended, and on which vCPU.
    end: Option<(VcpuId, Result<StopReason>)>,
}

#[derive(Debug)]
struct Member {
    life: Life,
    request: Request,
    /// Whether it waits for another to start.
    is_asking: bool,
    /// How often it was started.
    starts: u64,
    /// The exits so far.
    exits: ExitCounts,
}

/// What a vCPU is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It has executed nothing.
    Unstarted,
    /// It executes the guest's instructions.
    Runs,
    /// It has executed HLT, and can be started anew.
    Halted {
        /// RFLAGS.IF, then.
        interrupts_enabled: bool,
    },
}

/// A request to start, which one vCPU makes and the thread of another answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// There is none.
    None,
    /// Start like this.
    Wanted(LongMode),
    /// Its registers are being set.
    Taken,
    /// It will be started when the machine goes on; whoever asked has an answer.
    Accepted(LongMode),
    /// It cannot be.
    Refused(HypercallError),
}

impl Crew {
    /// The crew of a machine with or without interrupt controllers; one vCPU is none.
    #[must_use]
    pub fn of(vcpus: VcpuCount, has_controllers: bool) -> Option<Self> {
        if vcpus == VcpuCount::ONE {
            return None;
        }
        let member = |id| Member {
            life: if id == VcpuId::FIRST || has_controllers { Life::Runs } else { Life::Unstarted },
            request: Request::None,
            is_asking: false,
            starts: 0,
            exits: ExitCounts::default(),
        };
        let state = State { members: vcpus.ids().map(member).collect(), end: None };
        Some(Self { state: Mutex::new(state), changed: Condvar::new(), is_kvms: has_controllers })
    }

    /// What `vcpu` is about; between two pieces that does not change.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn life(&self, vcpu: &Vcpu) -> Result<Life> {
        if self.is_kvms { vcpu.life() } else { Ok(self.lock().member(vcpu.id()).life) }
    }

    /// Whether the vCPU `id` is asked to start.
    pub(crate) fn is_asked(&self, id: VcpuId) -> bool {
        self.lock().member(id).request != Request::None
    }

    /// Lets the vCPU `id` be about something else, while all stand; where KVM keeps that, KVM has been told.
    pub(crate) fn set_life(&self, id: VcpuId, life: Life) {
        if !self.is_kvms {
            self.lock().member(id).life = life;
        }
    }

    /// How often the vCPU `id` has left the guest, as of the end of the last piece.
    #[must_use]
    pub fn exits(&self, id: VcpuId) -> ExitCounts {
        self.lock().member(id).exits
    }

    /// Starts the vCPU of this number, for a guest that asks.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` for one that runs, `BadArgument` when KVM takes no such registers, `HostFailed` when
    /// the run ends before.
    pub(crate) fn start(
        &self,
        caller: VcpuId,
        cpu: u64,
        mode: LongMode,
        stop: &StopHandle,
    ) -> std::result::Result<(), HypercallError> {
        let mut state = self.lock();
        // Whoever asks runs: those that wait for its answer have it, so no two wait for each other.
        state.member(caller).answer(Err(HypercallError::AlreadyExists));
        self.changed.notify_all();
        let count = state.members.len() as u64;
        let id = VcpuId::new(cpu).filter(|_| cpu < count).ok_or(HypercallError::NotFound)?;
        let member = state.member(id);
        let surely_runs = member.life == Life::Runs && !self.is_kvms || member.is_asking || id == caller;
        if surely_runs || member.request != Request::None {
            return Err(HypercallError::AlreadyExists);
        }
        member.request = Request::Wanted(mode);
        let starts = member.starts;
        state.member(caller).is_asking = true;
        self.changed.notify_all();
        stop.kick_one(id);
        let (mut state, answer) = self.await_answer(state, id, starts);
        state.member(caller).is_asking = false;
        answer
    }

    /// Waits for the answer of the vCPU `id`, which was started so many times before. It may run and halt, and be started
    /// once more, before this one looks.
    fn await_answer<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        id: VcpuId,
        starts: u64,
    ) -> (MutexGuard<'a, State>, std::result::Result<(), HypercallError>) {
        while state.member(id).starts == starts {
            let has_ended = state.end.is_some();
            let member = state.member(id);
            match member.request {
                Request::Refused(why) => {
                    member.request = Request::None;
                    return (state, Err(why));
                }
                // The thread that would do it stands already: the piece is over, such as by a pause.
                Request::Wanted(mode) if has_ended => {
                    member.request = Request::Accepted(mode);
                    return (state, Ok(()));
                }
                _ => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state, Ok(()))
    }

    /// Runs all vCPUs until one of them comes to an end. Gives which, and its end.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn run(
        &self,
        first: &mut Vcpu,
        others: &mut [Vcpu],
        machine: &Machine,
        observer: &mut impl Observer,
    ) -> Result<(VcpuId, StopReason)> {
        self.muster(&machine.stop);
        let observer = Mutex::new(observer);
        let post = |id| Post { id, crew: self, machine, observer: &observer };
        thread::scope(|scope| {
            for vcpu in &mut *others {
                let id = vcpu.id();
                if let Err(source) = spawn(scope, post(id), vcpu) {
                    self.end(id, Err(Error::VcpuThread { vcpu: id, source }), &machine.stop);
                    break;
                }
            }
            post(first.id()).serve(first);
        });
        // What KVM has kept of the guest's writes since the last exit of the vCPU that asked for it.
        first.drain_coalesced();
        others.iter_mut().for_each(Vcpu::drain_coalesced);
        let (id, end) = self.lock().end.take().expect("the threads return when the piece has ended");
        let stop = end?;
        let id = if stop.is_from_outside() { self.lowest_that_runs(first, others).unwrap_or(id) } else { id };
        Ok((id, stop))
    }

    /// The vCPU that is named when none of them has ended the run: which one saw the request first says nothing.
    fn lowest_that_runs(&self, first: &Vcpu, others: &[Vcpu]) -> Option<VcpuId> {
        let mut vcpus = iter::once(first).chain(others);
        vcpus.find(|vcpu| matches!(self.life(vcpu), Ok(Life::Runs))).map(Vcpu::id)
    }

    /// Makes ready for a piece. Where all have halted the first goes on behind its HLT, as a single vCPU would.
    fn muster(&self, stop: &StopHandle) {
        stop.forget_recall();
        let mut state = self.lock();
        if !state.members.iter().any(|member| member.life == Life::Runs) {
            state.member(VcpuId::FIRST).life = Life::Runs;
        }
    }

    /// Ends the piece, unless another vCPU has: the first end counts.
    fn end(&self, id: VcpuId, end: Result<StopReason>, stop: &StopHandle) {
        let mut state = self.lock();
        self.end_locked(&mut state, id, end, stop);
    }

    fn end_locked(&self, state: &mut State, id: VcpuId, end: Result<StopReason>, stop: &StopHandle) {
        state.end.get_or_insert((id, end));
        stop.recall();
        self.changed.notify_all();
    }

    /// The vCPU `id` has halted. When all have, that is the end.
    fn halt(&self, id: VcpuId, interrupts_enabled: bool, stop: &StopHandle) {
        let mut state = self.lock();
        state.member(id).life = Life::Halted { interrupts_enabled };
        let runs = |member: &Member| member.life == Life::Runs;
        if !state.members.iter().any(runs)
            && let Life::Halted { interrupts_enabled } = state.member(VcpuId::FIRST).life
        {
            self.end_locked(&mut state, VcpuId::FIRST, Ok(StopReason::Halted { interrupts_enabled }), stop);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn member(&mut self, id: VcpuId) -> &mut Member {
        self.members.get_mut(id.index()).expect("every vCPU of the machine is a member")
    }
}

impl Member {
    /// Answers the request to start, if there is one.
    fn answer(&mut self, started: std::result::Result<(), HypercallError>) {
        if self.request == Request::None {
            return;
        }
        match started {
            Ok(()) => {
                (self.life, self.request) = (Life::Runs, Request::None);
                self.starts += 1;
            }
            // Nobody waits for the answer to what was accepted: such a vCPU stays as it is.
            Err(_) if matches!(self.request, Request::Accepted(_)) => self.request = Request::None,
            Err(why) => self.request = Request::Refused(why),
        }
    }
}

/// A vCPU's place in the crew, for as long as a piece lasts.
struct Post<'a, O> {
    id: VcpuId,
    crew: &'a Crew,
    machine: &'a Machine,
    observer: &'a Mutex<O>,
}

/// What a vCPU is to do now.
enum Duty {
    /// Go on.
    Run,
    /// Start like this.
    Start(LongMode),
    /// Nothing: the piece has ended.
    Stand,
}

impl<O: Observer> Post<'_, O> {
    /// Runs `vcpu` whenever it is to run, until the piece has ended.
    fn serve(self, vcpu: &mut Vcpu) {
        let _alarm = Alarm { crew: self.crew, stop: &self.machine.stop };
        let mut observer = Shared::new(self.id, self.crew.exits(self.id), self.observer);
        loop {
            match self.await_duty() {
                Duty::Run => {}
                Duty::Start(mode) => {
                    self.start(vcpu, mode);
                    continue;
                }
                Duty::Stand => break,
            }
            match run_loop::run(vcpu, self.machine, &mut observer) {
                Ok(None) => {}
                Ok(Some(StopReason::Halted { interrupts_enabled })) => {
                    self.crew.halt(self.id, interrupts_enabled, &self.machine.stop);
                }
                Ok(Some(reason)) => self.crew.end(self.id, Ok(reason), &self.machine.stop),
                Err(error) => self.crew.end(self.id, Err(error), &self.machine.stop),
            }
        }
        self.crew.lock().member(self.id).exits = *observer.counts();
    }

    /// Waits until this vCPU has something to do. A start that was asked for comes before the end of the piece: whoever
    /// asks has an answer.
    fn await_duty(&self) -> Duty {
        let mut state = self.crew.lock();
        loop {
            let has_ended = state.end.is_some();
            let member = state.member(self.id);
            match (member.request, member.life) {
                (Request::Wanted(mode), _) => {
                    member.request = Request::Taken;
                    return Duty::Start(mode);
                }
                _ if has_ended => return Duty::Stand,
                (Request::Accepted(mode), _) => return Duty::Start(mode),
                (_, Life::Runs) => return Duty::Run,
                (_, Life::Unstarted | Life::Halted { .. }) => {}
            }
            state = self.crew.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives `vcpu` the registers that were asked for, and answers whoever asked. What KVM does not take is the guest's
    /// mistake.
    fn start(&self, vcpu: &mut Vcpu, mode: LongMode) {
        let started = self.try_start(vcpu, mode);
        self.crew.lock().member(self.id).answer(started);
        self.crew.changed.notify_all();
    }

    fn try_start(&self, vcpu: &mut Vcpu, mode: LongMode) -> std::result::Result<(), HypercallError> {
        if self.crew.is_kvms {
            // Whether it was started by an interrupt only KVM knows.
            match vcpu.life() {
                Ok(Life::Unstarted) => vcpu.wake().map_err(|_| HypercallError::HostFailed)?,
                Ok(_) => return Err(HypercallError::AlreadyExists),
                Err(_) => return Err(HypercallError::HostFailed),
            }
        }
        vcpu.start_in(&CpuMode::Long(mode)).map(drop).map_err(|_| HypercallError::BadArgument)
    }
}

/// Starts the thread of one of the others.
fn spawn<'scope, O: Observer>(
    scope: &'scope Scope<'scope, '_>,
    post: Post<'scope, O>,
    vcpu: &'scope mut Vcpu,
) -> io::Result<()> {
    let thread = thread::Builder::new().name(format!("vcpu-{}", post.id.number()));
    let body = move || match vcpu.attach(&post.machine.stop) {
        Ok(_attached) => post.serve(vcpu),
        Err(error) => post.crew.end(post.id, Err(error), &post.machine.stop),
    };
    thread.spawn_scoped(scope, body).map(drop)
}

/// Recalls the others should the thread that has this panic: the scope waits for all of them.
struct Alarm<'a> {
    crew: &'a Crew,
    stop: &'a StopHandle,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = StopReason::Interrupted; // never told: the panic goes on when all threads have returned
            self.crew.end(VcpuId::FIRST, Ok(reason), self.stop);
        }
    }
}
