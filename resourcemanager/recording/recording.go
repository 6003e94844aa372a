// Package recording writes the inputs of a zone to a file, turn by turn, and replays them. The same inputs lead to the same decisions,
// so a fault can be reproduced any number of times.
//
// A recording is a file of JSON lines. The first has the start of the zone with its stored records. Each turn has a line for its time
// and random bytes, one for each input, and one with digests of its decisions and of the answers to its inputs. The line of an input is
// written before the zone applies it, so that the last line of a recording is the cause of a crash.
//
// A recording contains the keys and tokens of its zone.
//
// A Writer owns one recording and its bound. It is no part of what decides: a zone runs the same without it.
package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"reflect"
	"time"

	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// line is one line of a recording: the start of a zone, the beginning of a turn, an input, or the end of a turn.
type line struct {
	Begun *begun          `json:"begun,omitempty"`
	Turn  json.RawMessage `json:"turn,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
	// Kind is the kind of the input.
	Kind string `json:"kind,omitempty"`
	// Ready is the digest of a turn's decisions, or of those of the start.
	Ready string `json:"ready,omitempty"`
	// Answers is the digest of what the zone has answered to the inputs of a turn. It stands beside Ready.
	Answers string `json:"answers,omitempty"`
}

// begun is the state with which a zone begins.
type begun struct {
	Start    json.RawMessage `json:"start"`
	Identity json.RawMessage `json:"identity"`
	Records  json.RawMessage `json:"records"`
	// LastEvent is the sequence number of the newest event ever.
	LastEvent int64 `json:"lastEvent"`
}

// moment has the time and the random bytes of a turn.
type moment struct {
	Now  time.Time
	Seed zone.Seed
}

// Writer records one zone from its start. It is not safe for use by several goroutines.
type Writer struct {
	to      io.Writer
	left    int64
	answers answers
	failed  error
}

// NewWriter records to a writer, at most most bytes.
func NewWriter(to io.Writer, most int64) *Writer {
	return &Writer{to: to, left: most, answers: newAnswers()}
}

// Err is why recording has stopped; nil while it continues.
func (w *Writer) Err() error { return w.failed }

// Load is zone.Load, and records the stored records and the start.
func (w *Writer) Load(stored zone.Records, start zone.Start) (*zone.Core, *zone.Ready, error) {
	read := &readRecords{Records: stored}
	core, out, err := zone.Load(read, start)
	if err != nil {
		return nil, nil, err
	}
	first := &begun{LastEvent: stored.LastEvent()}
	first.Start = w.encode(start)
	first.Identity = w.encode(stored.Identity())
	first.Records = w.encode(read.all)
	w.write(line{Begun: first})
	w.Ready(out)
	return core, out, nil
}

// Begin records that a turn begins.
func (w *Writer) Begin(now time.Time, seed zone.Seed) {
	w.answers.Reset()
	w.write(line{Turn: w.encode(moment{now, seed})})
}

// Input records an input before the zone applies it.
func (w *Writer) Input(in zone.Input) { w.write(line{Kind: kindOf(in), Input: w.encode(in)}) }

// Answer notes what the zone has answered to the input that was recorded last.
func (w *Writer) Answer(value any, err error) {
	if w.failed == nil {
		w.failed = w.answers.add(value, err)
	}
}

// Ready records the digests of a turn's decisions and of its answers.
func (w *Writer) Ready(out *zone.Ready) {
	if w.failed != nil {
		return
	}
	digest, err := digest(out)
	if err != nil {
		w.failed = err
	}
	w.write(line{Ready: digest, Answers: w.answers.digest()})
}

func (w *Writer) encode(value any) json.RawMessage {
	if w.failed != nil {
		return nil
	}
	encoded, err := encode(reflect.ValueOf(value))
	if err == nil {
		var raw []byte
		if raw, err = json.Marshal(encoded); err == nil {
			return raw
		}
	}
	w.failed = fmt.Errorf("record a %T: %w", value, err)
	return nil
}

func (w *Writer) write(l line) {
	if w.failed != nil {
		return
	}
	raw, err := json.Marshal(l)
	if err != nil {
		w.failed = err
		return
	}
	raw = append(raw, '\n')
	if w.left -= int64(len(raw)); w.left < 0 {
		w.failed = fmt.Errorf("the recording is as long as it may be: %w", io.ErrShortWrite)
		return
	}
	if _, err := w.to.Write(raw); err != nil {
		w.failed = fmt.Errorf("write the recording: %w", err)
	}
}

func kindOf(in zone.Input) string { return reflect.TypeOf(in).Name() }

// digest is equal for two turns with the same decisions.
func digest(out *zone.Ready) (string, error) {
	encoded, err := encode(reflect.ValueOf(*out))
	if err != nil {
		return "", fmt.Errorf("record what a turn has decided: %w", err)
	}
	raw, err := json.Marshal(encoded)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16]), nil
}

// answers is a digest of what a zone has answered in a turn. An answer is added at once, because later inputs may change what it
// points to.
type answers struct{ hash.Hash }

func newAnswers() answers { return answers{sha256.New()} }

// add adds the answer to an input: a value, or an error with its class and its sentence.
func (a answers) add(value any, err error) error {
	answer := struct {
		Value any
		Code  int
		Error string
	}{}
	if err != nil {
		answer.Code, answer.Error = int(status.Code(wire.Status(err))), err.Error()
	}
	if value != nil {
		encoded, err := encode(reflect.ValueOf(value))
		if err != nil {
			return fmt.Errorf("record the answer %T: %w", value, err)
		}
		answer.Value = encoded
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	_, _ = a.Write(append(raw, '\n')) // a hash takes everything
	return nil
}

func (a answers) digest() string { return hex.EncodeToString(a.Sum(nil)[:16]) }

// readRecords passes on the stored records and keeps a copy.
type readRecords struct {
	zone.Records
	all []store.Put
}

// Load implements zone.Records.
func (r *readRecords) Load(kind store.Kind, each func(key string, value []byte) error) error {
	return r.Records.Load(kind, func(key string, value []byte) error {
		r.all = append(r.all, store.Put{Kind: kind, Key: key, Value: value})
		return each(key, value)
	})
}
