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

// Turn is a turn that was played back.
type Turn struct {
	// Number counts turns from 1; zero is the start of the zone.
	Number int
	Now    time.Time
	Inputs []zone.Input
	// Answers are those of the inputs: the error, or nil.
	Answers []error
	// Ready is what the turn decided, nil if the recording ends in it. Same says that it decided the same when it was recorded.
	Ready *zone.Ready
	Same  bool
}

// Replay plays a recording back and calls each after every turn, until each fails. It returns the zone as it is after the last turn.
func Replay(from io.Reader, each func(*zone.Core, Turn) error) (*zone.Core, error) {
	p := &player{lines: bufio.NewReader(from), kinds: map[string]reflect.Type{}, each: each}
	for _, in := range zone.Inputs() {
		p.kinds[kindOf(in)] = reflect.TypeOf(in)
	}
	for {
		raw, err := p.lines.ReadBytes('\n')
		if len(raw) == 0 || errors.Is(err, io.EOF) { // a line without its end was being written when the program ended
			if errors.Is(err, io.EOF) {
				return p.end()
			}
			return p.core, err
		}
		p.line++
		if err := p.play(raw); err != nil {
			return p.core, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
}

type player struct {
	lines *bufio.Reader
	kinds map[string]reflect.Type
	each  func(*zone.Core, Turn) error
	core  *zone.Core
	line  int
	turn  Turn
	// open says that a turn has begun and not ended.
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
		return errors.New("a recording begins with what its zone was made of, and this one does not")
	case l.Turn != nil:
		var at moment
		if err := decode(l.Turn, reflect.ValueOf(&at).Elem()); err != nil {
			return err
		}
		p.turn = Turn{Number: p.turn.Number + 1, Now: at.Now}
		p.open = true
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
		return p.ended(out, l.Ready)
	}
	return errors.New("this line says nothing that a recording says")
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
	_, err := p.core.Step(input)
	p.turn.Answers = append(p.turn.Answers, err)
	return nil
}

func (p *player) ended(out *zone.Ready, recorded string) error {
	played, err := digest(out)
	if err != nil {
		return err
	}
	p.turn.Ready, p.turn.Same, p.open = out, played == recorded, false
	return p.each(p.core, p.turn)
}

// end is about a recording that is over: in the midst of a turn if the program ended there.
func (p *player) end() (*zone.Core, error) {
	if p.core == nil {
		return nil, errors.New("the recording is empty")
	}
	if !p.open {
		return p.core, nil
	}
	out, err := p.core.Ready()
	if err != nil {
		return p.core, err
	}
	p.turn.Ready, p.turn.Same = out, true
	return p.core, p.each(p.core, p.turn)
}

// playedRecords are those of a recording.
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
