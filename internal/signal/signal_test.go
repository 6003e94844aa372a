package signal_test

import (
	"testing"

	"github.com/mammoth-os/mammoth/internal/signal"
)

func TestName(t *testing.T) {
	for number, want := range map[int]string{9: "SIGKILL", 15: "SIGTERM", 37: "signal 37", 0: "signal 0"} {
		if got := signal.Name(number); got != want {
			t.Errorf("%d is called %q", number, got)
		}
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]int{
		"QUIT": 3, "SIGQUIT": 3, "sigterm": 15, "15": 15, "USR1": 10, "WINCH": 28, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64,
	} {
		if got, err := signal.Number(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "SIG", "FOO", "SIGFOO", "0", "65", "-1", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+", "SIGSIGTERM", "1 5", "TERM\x00"} {
		if got, err := signal.Number(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}
