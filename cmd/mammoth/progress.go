package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	waits "github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

// progress shows a person the state of an app while a command waits for it.
type progress interface {
	update(*apiv1.App)
	// away shows that the zone does not answer.
	away()
	end()
}

func newProgress(out io.Writer) progress {
	if file, ok := out.(*os.File); ok && isTerminal(file) {
		return &liveProgress{out: file, columns: func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 80
			}
			return width
		}}
	}
	return &lineProgress{out: out, seen: map[string]string{}}
}

// liveProgress redraws one line per instance on a terminal.
type liveProgress struct {
	out     io.Writer
	columns func() int
	drawn   int
}

// maxDrawn keeps the lines on one screen: lines that have scrolled away cannot be redrawn.
const maxDrawn = 20

func (p *liveProgress) update(app *apiv1.App) {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s%s\n", app.GetName(), runningText(app), rolloutNote(app))
	reasonLines(&text, app, p.columns(), nil)
	instanceLines(&text, app)
	p.draw(text.String())
}

// reasonLines lists what becomes of an app in trouble and why it waits, in lines of at most width characters, without the reasons
// for which without, if it is set, is true.
func reasonLines(text *strings.Builder, app *apiv1.App, width int, without func(*apiv1.Waiting) bool) {
	if outlook := outlookText(app); outlook != "" && inTrouble(app) {
		wrap(text, outlook, width)
	}
	for _, w := range app.GetWaiting() {
		if without == nil || !without(w) {
			wrap(text, "waiting: "+waitingNote(w), width)
		}
	}
}

// wrap breaks a sentence into lines of at most width characters.
func wrap(text *strings.Builder, sentence string, width int) {
	column := 0
	for i, word := range strings.Fields(sentence) {
		length := len([]rune(word))
		switch {
		case i == 0:
			text.WriteString("  ")
			column = 2
		case width > 0 && column+1+length >= width:
			text.WriteString("\n    ")
			column = 4
		default:
			text.WriteString(" ")
			column++
		}
		text.WriteString(word)
		column += length
	}
	text.WriteString("\n")
}

// instanceLines is a line for each instance; if there are many, those that do not run yet come first.
func instanceLines(text *strings.Builder, app *apiv1.App) {
	t := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	shown := app.GetInstances()
	if len(shown) > maxDrawn {
		shown = unfinishedFirst(shown)[:maxDrawn]
	}
	for _, instance := range shown {
		fmt.Fprintf(t, "  %s\t%s\t%s\tversion %d\t%s\n", instance.GetId(), word(instance.GetState()), orDash(instance.GetNode()), instance.GetVersion(), note(instance))
	}
	_ = t.Flush()
	if rest := len(app.GetInstances()) - len(shown); rest > 0 {
		fmt.Fprintf(text, "  and %d more\n", rest)
	}
}

// draw replaces the last text.
func (p *liveProgress) draw(text string) {
	var frame strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", p.drawn)
	}
	p.drawn = 0
	width := p.columns()
	for line := range strings.Lines(text) {
		letters := []rune(strings.TrimRight(line, " \n"))
		if width > 0 && len(letters) >= width {
			letters = letters[:width-1]
		}
		fmt.Fprintf(&frame, "\x1b[2K%s\n", string(letters))
		p.drawn++
	}
	fmt.Fprint(&frame, "\x1b[J")
	_, _ = io.WriteString(p.out, frame.String())
}

func (p *liveProgress) end() {}

func (p *liveProgress) away() {
	fmt.Fprintln(p.out, awayText)
	p.drawn = 0
}

// awayText is shown while a zone does not answer.
const awayText = "the zone does not answer at present; waiting for it to come back"

func unfinishedFirst(instances []*apiv1.Instance) []*apiv1.Instance {
	var unfinished, running []*apiv1.Instance
	for _, instance := range instances {
		if instance.GetState() == apiv1.Instance_RUNNING {
			running = append(running, instance)
		} else {
			unfinished = append(unfinished, instance)
		}
	}
	return append(unfinished, running...)
}

// lineProgress writes a line for every change, where there is no terminal.
type lineProgress struct {
	out  io.Writer
	seen map[string]string
	// reasons are the reasons of the last update.
	reasons map[string]bool
	// judged is the outlook that was last printed.
	judged  string
	changes changedInstances
}

func (p *lineProgress) update(app *apiv1.App) {
	p.changes.Lock()
	defer p.changes.Unlock()
	present := map[string]bool{}
	for _, instance := range app.GetInstances() {
		present[instance.GetId()] = true
		running := instance.GetState() == apiv1.Instance_RUNNING
		if running && instance.GetPort() == 0 && hasPorts(app, instance) {
			continue // its node will be known soon, and belongs on the same line
		}
		line := fmt.Sprintf("%s: %s", instance.GetId(), word(instance.GetState()))
		if instance.GetNode() != "" {
			line += " on " + instance.GetNode()
		}
		about := line + instance.GetContainerId()
		// The reason of an instance without a container is among the app's reasons.
		waits := instance.GetState() == apiv1.Instance_PENDING && instance.GetContainerId() == "" && len(app.GetWaiting()) > 0
		if !running && !waits {
			about += instance.GetReason()
		}
		if note := note(instance); note != "" && !waits {
			line += ", " + note
		}
		if name := instance.GetId(); p.seen[name] != about {
			p.seen[name] = about
			why := ""
			if !running && !waits {
				why = instance.GetReason()
			}
			p.changes.add(instanceChange{name: name, node: instance.GetNode(), state: word(instance.GetState()), why: why, line: line})
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.seen), id.CompareNames) {
		if name != "" && !present[name] {
			p.changes.add(instanceChange{name: name, state: "gone", line: name + ": gone"})
			delete(p.seen, name)
		}
	}
	p.changes.print(p.out, len(app.GetInstances()))
	if ends(app) && app.GetReason() != "" {
		p.say("", app.GetReason(), fmt.Sprintf("%s: %s: %s", app.GetName(), word(app.GetState()), app.GetReason()))
	}
	p.judgement(app)
	p.waiting(app, nil)
	if len(app.GetInstances()) == 0 && app.GetState() == apiv1.App_ACCEPTED {
		p.say("", "master", fmt.Sprintf("%s: its application master is being started", app.GetName()))
	}
}

// waiting writes a line for each new reason why an app waits. A reason with changed figures only is not new.
func (p *lineProgress) waiting(app *apiv1.App, without func(*apiv1.Waiting) bool) {
	reasons := app.GetWaiting()
	if without != nil {
		reasons = slices.DeleteFunc(slices.Clone(reasons), without)
	}
	p.reasonsFor(app.GetName(), reasons)
}

// judgement writes a line when the outlook of an app in trouble has changed. A clock that pauses is not a change.
func (p *lineProgress) judgement(app *apiv1.App) {
	outlook := outlookText(app)
	if outlook == "" || !inTrouble(app) || outlook == p.judged || app.GetStatus().GetOutlook().GetAt() == nil && !hasFailures(app) {
		return
	}
	p.judged = outlook
	fmt.Fprintf(p.out, "%s: %s\n", app.GetName(), outlook)
}

func (p *lineProgress) reasonsFor(name string, waiting []*apiv1.Waiting) {
	if p.reasons == nil {
		p.reasons = map[string]bool{}
	}
	now := map[string]bool{}
	for _, w := range waiting {
		about := waits.Kind(w)
		now[about] = true
		if !p.reasons[about] {
			fmt.Fprintf(p.out, "%s: waiting: %s\n", name, waitingNote(w))
		}
	}
	p.reasons = now
}

// say writes a line unless the last one about the same object had the same state.
func (p *lineProgress) say(about, state, line string) {
	if p.seen[about] != state {
		p.seen[about] = state
		fmt.Fprintln(p.out, line)
	}
}

func (p *lineProgress) end() {
	p.changes.Lock()
	defer p.changes.Unlock()
	p.changes.flush(p.out)
}

func (p *lineProgress) away() {
	p.end()
	fmt.Fprintln(p.out, awayText)
}

// ends reports whether an app is being stopped or removed; its reason then says what it waits for.
func ends(app *apiv1.App) bool {
	return app.GetState() == apiv1.App_STOPPING || app.GetState() == apiv1.App_REMOVING
}

func rolloutNote(app *apiv1.App) string {
	if ends(app) {
		return ": " + because(word(app.GetState()), app.GetReason())
	}
	if foreign(app) && app.GetStatus().GetText() != "" {
		return ", " + app.GetStatus().GetText()
	}
	if status := app.GetStatus(); status.GetState() == apiv1.MasterStatus_WORKING {
		return fmt.Sprintf(", %d of %d at version %d%s", status.GetDone(), status.GetTotal(), status.GetVersion(), shareOf(rolloutOf(status)))
	}
	return ""
}

// note describes an instance: why it does not run, or its node and the durations of its phases.
func note(instance *apiv1.Instance) string {
	if instance.GetState() != apiv1.Instance_RUNNING {
		return instance.GetReason()
	}
	var parts []string
	if instance.GetPort() != 0 {
		parts = append(parts, address(instance))
	}
	for _, phase := range instance.GetPhases() {
		if phase.GetDurationMs() > 0 || phase.GetName() != "run" { // the duration of the last phase arrives later
			parts = append(parts, phase.GetName()+" "+millis(phase.GetDurationMs()))
		}
	}
	return strings.Join(parts, ", ")
}

// uploadProgress shows how much has arrived: live on a terminal, elsewhere in a line now and then.
type uploadProgress struct {
	out   io.Writer
	total int64
	live  bool
	stop  func()

	mu   sync.Mutex
	sent int64
}

func newUploadProgress(out io.Writer, total int64) *uploadProgress {
	p := &uploadProgress{out: out, total: total, live: isTerminal(out)}
	p.stop = while(quietTime, p.say)
	return p
}

func (p *uploadProgress) update(sent int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = sent
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[2K"+p.text())
	}
}

// say prints how much was uploaded; it is called every few seconds.
func (p *uploadProgress) say() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[2K"+p.text())
		return
	}
	fmt.Fprintln(p.out, p.text())
}

func (p *uploadProgress) text() string {
	switch {
	case p.total > 0 && p.sent >= p.total:
		return fmt.Sprintf("uploaded %s; the zone unpacks and checks it", size(p.sent))
	case p.total > 0:
		return fmt.Sprintf("uploading: %s of %s", size(p.sent), size(p.total))
	}
	return "uploading: " + size(p.sent)
}

func (p *uploadProgress) end() {
	p.stop()
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[2K")
	}
}
