package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// Turn is a replayed turn.
type Turn struct {
	// Number counts turns from 1; zero is the start of the zone.
	Number int
	Now    time.Time
	Inputs []zone.Input
	// Answers has the answer to each input.
	Answers []Answer
	// Ready is what the turn has decided. Same is true if the recorded turn decided and answered the same, or if the recording ends
	// within the turn.
	Ready *zone.Ready
	Same  bool
}

// Answer is what the zone has answered to an input: a value, which may be nil, or an error.
type Answer struct {
	Value any
	Err   error
}

// Played is the result of a replay.
type Played struct {
	// Start is the state with which the zone began. Zone is its state after the last turn, whose time is Until.
	Start zone.Start
	Zone  *zone.Core
	Until time.Time
	// Turns and Inputs count the turns and inputs. Others counts the turns whose decisions or answers differ from the recorded ones;
	// FirstOther is the number of the first of them.
	Turns, Inputs, Others, FirstOther int
}

// Replay replays a recording and calls visit after every turn, until visit fails. It fails if the file is not a recording of this
// version of the program, and then also returns the result so far.
func Replay(from io.Reader, visit func(Turn) error) (Played, error) {
	p := &player{lines: bufio.NewReader(from), kinds: map[string]reflect.Type{}, visit: visit, answers: newAnswers()}
	for _, in := range zone.Inputs() {
		p.kinds[kindOf(in)] = reflect.TypeOf(in)
	}
	for {
		raw, err := p.lines.ReadBytes('\n')
		if len(raw) == 0 || errors.Is(err, io.EOF) { // an incomplete line was being written when the program ended
			if errors.Is(err, io.EOF) {
				return p.played, p.end()
			}
			return p.played, fmt.Errorf("read the recording: %w", err)
		}
		p.line++
		if err := p.play(raw); err != nil {
			return p.played, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
}

type player struct {
	lines  *bufio.Reader
	kinds  map[string]reflect.Type
	visit  func(Turn) error
	played Played
	core   *zone.Core
	line   int
	turn   Turn
	// answers is the digest of those of the turn.
	answers answers
	// open is true between the beginning and the end of a turn.
	open bool
}

func (p *player) play(raw []byte) error {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return fmt.Errorf("this is not a line of a recording: %w", err)
	}
	switch {
	case l.Begun != nil && p.core == nil:
		return p.begin(l.Begun)
	case p.core == nil:
		return errors.New("this is not a recording: its first line is not the start of a zone")
	case l.Turn != nil:
		var at moment
		if err := decode(l.Turn, reflect.ValueOf(&at).Elem()); err != nil {
			return err
		}
		p.turn = Turn{Number: p.turn.Number + 1, Now: at.Now}
		p.open = true
		p.answers.Reset()
		p.core.Begin(at.Now, at.Seed)
		return nil
	case l.Kind != "":
		return p.step(l)
	case l.Ready != "":
		out := p.turn.Ready
		if p.open {
			var err error
			if out, err = p.core.Ready(); err != nil {
				return err
			}
		}
		return p.ended(out, l)
	}
	return errors.New("this line is empty or of another version of the program")
}

func (p *player) begin(first *begun) error {
	var start zone.Start
	records := &playedRecords{last: first.LastEvent}
	for _, part := range []struct {
		raw  json.RawMessage
		into any
	}{{first.Start, &start}, {first.Identity, &records.identity}, {first.Records, &records.all}} {
		if err := decode(part.raw, reflect.ValueOf(part.into).Elem()); err != nil {
			return err
		}
	}
	core, out, err := zone.Load(records, start)
	if err != nil {
		return err
	}
	p.core, p.turn = core, Turn{Now: start.Now, Ready: out}
	p.played.Start, p.played.Zone = start, core
	return nil
}

func (p *player) step(l line) error {
	kind := p.kinds[l.Kind]
	if kind == nil {
		return fmt.Errorf("%q is no kind of input: the recording is of another version of the program", l.Kind)
	}
	in := reflect.New(kind).Elem()
	if err := decode(l.Input, in); err != nil {
		return fmt.Errorf("%s: %w", l.Kind, err)
	}
	input := in.Interface().(zone.Input)
	p.turn.Inputs = append(p.turn.Inputs, input)
	value, err := p.core.Step(input)
	p.turn.Answers = append(p.turn.Answers, Answer{value, err})
	return p.answers.add(value, err)
}

func (p *player) ended(out *zone.Ready, recorded line) error {
	played, err := digest(out)
	if err != nil {
		return err
	}
	p.turn.Ready, p.turn.Same, p.open = out, played == recorded.Ready && p.answers.digest() == recorded.Answers, false
	return p.count()
}

func (p *player) count() error {
	p.played.Turns, p.played.Until = p.turn.Number, p.turn.Now
	p.played.Inputs += len(p.turn.Inputs)
	if !p.turn.Same {
		if p.played.Others++; p.played.Others == 1 {
			p.played.FirstOther = p.turn.Number
		}
	}
	return p.visit(p.turn)
}

// end handles the end of a recording, which may be in the middle of a turn.
func (p *player) end() error {
	if p.core == nil {
		return errors.New("the recording is empty")
	}
	if !p.open {
		return nil
	}
	out, err := p.core.Ready()
	if err != nil {
		return err
	}
	p.turn.Ready, p.turn.Same = out, true
	return p.count()
}

// playedRecords are the stored records in a recording.
type playedRecords struct {
	identity store.Identity
	last     int64
	all      []store.Put
}

// Identity implements zone.Records.
func (r *playedRecords) Identity() store.Identity { return r.identity }

// LastEvent implements zone.Records.
func (r *playedRecords) LastEvent() int64 { return r.last }

// Load implements zone.Records.
func (r *playedRecords) Load(kind store.Kind, each func(key string, value []byte) error) error {
	for _, record := range r.all {
		if record.Kind != kind {
			continue
		}
		if err := each(record.Key, record.Value); err != nil {
			return err
		}
	}
	return nil
}
