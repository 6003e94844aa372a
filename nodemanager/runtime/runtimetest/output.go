package runtimetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

func logs(w *World) {
	spec := w.Spec("lines", "50")
	w.Run(spec)
	w.End(spec.ID)
	all := make([]string, 50)
	for i := range all {
		all[i] = fmt.Sprintf("line %d", i+1)
	}
	for tail, want := range map[int][]string{-1: all, 0: nil, 1: all[49:], 10: all[40:], 100: all} {
		if got := w.Output(spec.ID, runtime.LogOptions{Tail: tail}); got != strings.Join(want, "\n") {
			w.Errorf("tail %d is %q", tail, got)
		}
	}
	var last time.Time
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		if line.Time.Before(last) {
			w.Errorf("%q at %v comes after %v", line.Text, line.Time, last)
		}
		last = line.Time
		return nil
	})
	if err != nil || last.IsZero() {
		w.Fatal(err, last)
	}
	if got := w.Output(spec.ID, runtime.LogOptions{Tail: -1, Since: last}); !strings.HasSuffix(got, "line 50") {
		w.Errorf("since the last line's time: %q", got)
	}
	if got := w.Output(spec.ID, runtime.LogOptions{Tail: -1, Since: last.Add(time.Second)}); got != "" {
		w.Errorf("since after the end: %q", got)
	}
	if err := w.Logs(w.Context(), w.Spec().ID, runtime.LogOptions{}, nil); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("logs of the unknown: %v", err)
	}
	stop := errors.New("enough")
	if err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(runtime.LogLine) error { return stop }); !errors.Is(err, stop) {
		w.Errorf("the reader's own error came back as %v", err)
	}
}

func logsBoth(w *World) {
	spec := w.Spec("both")
	w.Run(spec)
	w.End(spec.ID)
	got := map[string]bool{}
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		got[line.Text] = line.Stderr
		return nil
	})
	if err != nil || !maps.Equal(got, map[string]bool{"out": false, "err": true}) {
		w.Errorf("got %v, %v", got, err)
	}
}

// A line that is too long continues in the next one, and no character is lost: neither while the container runs nor after
// its removal.
func logsLetters(w *World) {
	spec := w.Spec("letters", "100000")
	w.Run(spec)
	w.End(spec.ID)
	want := "x" + strings.Repeat("日", 100_000)
	for _, when := range []string{"before", "after"} {
		if got := strings.ReplaceAll(w.Output(spec.ID, runtime.LogOptions{Tail: -1}), "\n", ""); got != want {
			w.Errorf("%s its removal %d bytes are left of %d, %d of them replaced", when, len(got), len(want), strings.Count(got, "�"))
		}
		if err := w.Remove(w.Context(), spec.ID); err != nil {
			w.Error(err)
		}
	}
}

func logsFollow(w *World) {
	spec := w.Spec("tick", "20", "20")
	w.Run(spec)
	got := w.Output(spec.ID, runtime.LogOptions{Follow: true, Tail: -1})
	if lines := strings.Split(got, "\n"); len(lines) != 20 || lines[0] != "line 1" || lines[19] != "line 20" {
		w.Errorf("followed %q", got)
	}
	w.End(spec.ID)
	if again := w.Output(spec.ID, runtime.LogOptions{Follow: true, Tail: -1}); again != got {
		w.Errorf("following the ended gives %q", again)
	}
}

func logsOutlive(w *World) {
	spec := w.Spec("lines", "3")
	w.Run(spec)
	w.End(spec.ID)
	if err := w.Remove(w.Context(), spec.ID); err != nil {
		w.Fatal(err)
	}
	for range 2 {
		for _, follow := range []bool{false, true} {
			if got := w.Output(spec.ID, runtime.LogOptions{Tail: 2, Follow: follow}); got != "line 2\nline 3" {
				w.Errorf("after the removal: %q", got)
			}
		}
		w.Restart()
	}
	if err := w.Purge(w.Context(), spec.ID); err != nil {
		w.Fatal(err)
	}
	if err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{}, nil); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("after the purge: %v", err)
	}
}

func execExit(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	var out, errs bytes.Buffer
	for _, want := range []int{0, 3} {
		code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("exit", fmt.Sprint(want)), Stdout: &out, Stderr: &errs})
		if err != nil || code != want {
			w.Errorf("exit %d: %d, %v", want, code, err)
		}
	}
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("both"), Stdout: &out, Stderr: &errs})
	if err != nil || code != 0 || out.String() != "out\n" || errs.String() != "err\n" {
		w.Errorf("%d, %v, out %q, err %q", code, err, &out, &errs)
	}
	out.Reset()
	code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("env"), Env: map[string]string{"ASKED": "yes"}, Stdout: &out})
	if err != nil || code != 0 || !strings.Contains(out.String(), "ASKED=yes\n") {
		w.Errorf("%d, %v, environment %q", code, err, &out)
	}
}

// A command that cannot be run ends as in a shell.
func execNothing(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	for _, program := range []string{"/no/such/program", "no-such-program"} {
		var out, errs bytes.Buffer
		code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: []string{program, "-x"}, Stdout: &out, Stderr: &errs})
		if want := "mammoth: cannot run " + program + ": there is no such program in the container\n"; err != nil || code != 127 || out.Len() > 0 || errs.String() != want {
			w.Errorf("%s: %d, %v, out %q, err %q", program, code, err, &out, &errs)
		}
		code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: []string{program}, TTY: true, Stdout: &out})
		if want := "mammoth: cannot run " + program + ": there is no such program in the container\r\n"; err != nil || code != 127 || out.String() != want {
			w.Errorf("%s on a terminal: %d, %v, %q", program, code, err, &out)
		}
	}
}

func execStdin(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	text := strings.Repeat("0123456789abcdef", 8<<10)
	var out bytes.Buffer
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("cat"), Stdin: strings.NewReader(text), Stdout: &out})
	if err != nil || code != 0 || out.String() != text {
		w.Errorf("%d, %v, %d of %d bytes came back", code, err, out.Len(), len(text))
	}
}

func execTerminal(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	resize := make(chan runtime.WindowSize, 1)
	resize <- runtime.WindowSize{Rows: 40, Columns: 120}
	var out bytes.Buffer
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("tty"), TTY: true, Stdout: &out, Resize: resize})
	if err != nil || code != 0 || strings.TrimSpace(out.String()) != "40x120" {
		w.Errorf("%d, %v, %q", code, err, &out)
	}
	out.Reset()
	code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("tty"), Stdout: &out, Stderr: io.Discard})
	if err != nil || code != 1 {
		w.Errorf("without a terminal: %d, %v, %q", code, err, &out)
	}
}

func execEnded(w *World) {
	if _, err := w.Exec(w.Context(), w.Spec().ID, runtime.Exec{Command: w.Command("exit", "0")}); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("in the unknown: %v", err)
	}
	spec := w.Spec("exit", "0")
	w.Run(spec)
	w.End(spec.ID)
	if _, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("exit", "0")}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		w.Errorf("in the ended: %v", err)
	}
}
