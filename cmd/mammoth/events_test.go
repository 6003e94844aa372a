package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestEventsStandInColumns(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local))
	events := []*apiv1.Event{
		{Time: at, Kind: "attempt", App: "web", Attempt: "appattempt_1795316566064_0001_000001", From: "LAUNCHED", To: "REGISTERED", Message: "at work"},
		{Time: at, Kind: "container", App: "web", Instance: "storefront-web-12", Node: "node-1", To: "NEW", Message: "given"},
		{Time: at, Kind: "app", App: "web", From: "RUNNING", To: "DONE"},
	}
	// When nothing follows, the columns are as wide as the widest of all; else each line is at least as wide as those before it.
	for hold, want := range map[bool]string{
		true: `
2026-01-02 03:04:05.000  attempt    web                LAUNCHED → REGISTERED  at work
2026-01-02 03:04:05.000  container  storefront-web-12  NEW                    given [node-1]
2026-01-02 03:04:05.000  app        web                RUNNING → DONE
`,
		false: `
2026-01-02 03:04:05.000  attempt  web  LAUNCHED → REGISTERED  at work
2026-01-02 03:04:05.000  container  storefront-web-12  NEW                    given [node-1]
2026-01-02 03:04:05.000  app        web                RUNNING → DONE
`,
	} {
		var out strings.Builder
		lines := &eventLines{out: &out, hold: hold}
		for _, event := range events {
			if err := lines.add(event); err != nil {
				t.Fatal(err)
			}
		}
		if err := lines.flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want[1:] {
			t.Errorf("held %v:\n%swant%s", hold, &out, want)
		}
	}
}
