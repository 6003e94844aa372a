package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

var start = time.Unix(1_800_000_000, 0)

func numbered(from, to int) []runtime.LogLine {
	var lines []runtime.LogLine
	for i := from; i <= to; i++ {
		lines = append(lines, runtime.LogLine{Time: start.Add(time.Duration(i) * time.Second), Stderr: i%2 == 0, Text: fmt.Sprintf("line %d", i)})
	}
	return lines
}

func texts(t *testing.T, dir string, options runtime.LogOptions) string {
	t.Helper()
	var got []string
	err := Read(t.Context(), dir, "c", options, func(line runtime.LogLine) error {
		got = append(got, strings.TrimPrefix(line.Text, "line "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestReadChoosesLines(t *testing.T) {
	dir := t.TempDir()
	log, err := Open(dir, "c", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append(numbered(1, 9)); err != nil {
		t.Fatal(err)
	}
	for want, options := range map[string]runtime.LogOptions{
		"1 2 3 4 5 6 7 8 9": {Tail: -1},
		"":                  {},
		"9":                 {Tail: 1},
		"7 8 9":             {Tail: 3},
		"8 9":               {Tail: -1, Since: start.Add(8 * time.Second)},
	} {
		if got := texts(t, dir, options); got != want {
			t.Errorf("%+v reads %q, want %q", options, got, want)
		}
	}
	if got := texts(t, dir, runtime.LogOptions{Tail: 20}); got != "1 2 3 4 5 6 7 8 9" {
		t.Errorf("a tail longer than the log reads %q", got)
	}
}

func TestTurnedOverLogKeepsTheNewestWithinItsBound(t *testing.T) {
	dir := t.TempDir()
	log, err := Open(dir, "c", 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for i := 1; i <= 200; i++ {
		if err := log.Append(numbered(i, i)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	for _, name := range []string{"c.log", "c.log.1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*1000+100 {
		t.Errorf("200 lines keep %d bytes with a limit of 1000 a file", size)
	}
	if got := texts(t, dir, runtime.LogOptions{Tail: 40}); !strings.HasPrefix(got, "161 162 ") || !strings.HasSuffix(got, " 199 200") {
		t.Errorf("tail 40 reads %q", got)
	}
	if err := Delete(dir, "c"); err != nil {
		t.Fatal(err)
	}
	if err := Read(t.Context(), dir, "c", runtime.LogOptions{Tail: -1}, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("reading a deleted log: %v", err)
	}
}

func TestFollowMissesNothingWhileTheLogIsTurnedOver(t *testing.T) {
	log, err := Open(t.TempDir(), "c", 2000)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append(numbered(1, 3)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	seen := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- log.Follow(context.Background(), ended, runtime.LogOptions{Follow: true, Tail: 2}, func(line runtime.LogLine) error {
			seen <- line.Text
			return nil
		})
	}()
	next := 2
	expect := func(to int) {
		for ; next <= to; next++ {
			if got := <-seen; got != fmt.Sprintf("line %d", next) {
				t.Fatalf("read %q, want line %d", got, next)
			}
		}
	}
	expect(3)
	for i := 4; i <= 300; i += 10 {
		if err := log.Append(numbered(i, i+9)); err != nil {
			t.Fatal(err)
		}
		expect(i + 9)
	}
	if err := log.Append(numbered(next, next)); err != nil {
		t.Fatal(err)
	}
	close(ended)
	expect(next)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSpoolGoesOnWhereItWasAndFreesWhatItRead(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "stdout")
	process, err := os.OpenFile(raw, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	log, err := Open(dir, "c", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	write := func(text string) {
		t.Helper()
		if _, err := process.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	transfer := func(last bool) {
		t.Helper()
		spool, err := OpenSpool(raw, false)
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		for range 2 {
			if err := spool.Transfer(log, start, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("line 1\nline 2\nli")
	transfer(false)
	write("ne 3\n")
	transfer(false)
	write(strings.Repeat("x", 200<<10) + "\n")
	transfer(false)
	write("line 4")
	transfer(true)
	got := texts(t, dir, runtime.LogOptions{Tail: -1})
	if want := "1 2 3 "; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " 4") || strings.Count(got, "x") != 200<<10 {
		t.Errorf("read %.40q … %d bytes", got, len(got))
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(process.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Blocks*512 > 64<<10 {
		t.Errorf("%d bytes of disk behind a spool of %d that was read", stat.Blocks*512, stat.Size)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("1800000000000000000 e text"))
	f.Add([]byte("1 o "))
	f.Fuzz(func(t *testing.T, record []byte) {
		line, err := parseLine(record)
		if err != nil || bytes.IndexByte(record, '\n') >= 0 || len(line.Text) > MaxText {
			return
		}
		again, err := parseLine(bytes.TrimSuffix(appendLine(nil, line), []byte("\n")))
		if err != nil || again != line {
			t.Fatalf("%+v became %+v, %v", line, again, err)
		}
	})
}

// letters are many bytes with a letter of several bytes across every multiple of a power of two.
func letters(n int) string { return "x" + strings.Repeat("日", n) }

// A line that is too long goes on in further lines, which begin with a letter.
func TestALongLineIsCutBetweenLetters(t *testing.T) {
	text := letters(100_000)
	for name, write := range map[string]func(t *testing.T, log *Log){
		"at once": func(t *testing.T, log *Log) {
			if err := log.Append([]runtime.LogLine{{Time: start, Text: text}}); err != nil {
				t.Fatal(err)
			}
		},
		"by a spool": func(t *testing.T, log *Log) {
			path := filepath.Join(t.TempDir(), "spool")
			spool, err := OpenSpool(path, false)
			if err != nil {
				t.Fatal(err)
			}
			for rest := text; rest != ""; { // as it comes, not letter by letter
				piece := rest[:min(len(rest), 50_001)]
				rest = rest[len(piece):]
				file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = file.WriteString(piece)
				if err := errors.Join(err, file.Close(), spool.Transfer(log, start, rest == "")); err != nil {
					t.Fatal(err)
				}
			}
			if err := spool.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log, err := Open(dir, "c", 0)
			if err != nil {
				t.Fatal(err)
			}
			write(t, log)
			whole := ""
			err = Read(t.Context(), dir, "c", runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
				if len(line.Text) > MaxText || !utf8.ValidString(line.Text) {
					t.Errorf("a piece of %d bytes is cut within a letter", len(line.Text))
				}
				whole += line.Text
				return nil
			})
			if err := errors.Join(err, log.Close()); err != nil || whole != text {
				t.Errorf("%d bytes came back of %d, %v", len(whole), len(text), err)
			}
		})
	}
}

func TestWhatIsNoTextIsCutToo(t *testing.T) {
	for text, want := range map[string]int{"aaaaa": 4, "\x80\x80\x80\x80\x80\x80": 4, "aa日本": 2, "日本": 3, "a😀b": 1} {
		if got := Cut(text, 4); got != want {
			t.Errorf("%q is cut behind %d bytes, want %d", text, got, want)
		}
	}
}
