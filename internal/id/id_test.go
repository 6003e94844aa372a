package id_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
)

func TestTextFormsAreYarns(t *testing.T) {
	app := id.App{ClusterStart: 1700000000000, Seq: 7}
	for got, want := range map[string]string{
		app.String():                                       "application_1700000000000_0007",
		id.Attempt{App: app, N: 2}.String():                "appattempt_1700000000000_0007_000002",
		id.Container{Epoch: 3, App: app, Seq: 12}.String(): "container_e3_1700000000000_0007_000012",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestEveryIDReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Int64Range(0, 1<<53)
		app := id.App{ClusterStart: number.Draw(t, "start"), Seq: number.Draw(t, "seq")}
		if got, err := id.ParseApp(app.String()); err != nil || got != app {
			t.Fatalf("%v read back as %v, %v", app, got, err)
		}
		attempt := id.Attempt{App: app, N: rapid.Int32Range(1, 1<<30).Draw(t, "n")}
		if got, err := id.ParseAttempt(attempt.String()); err != nil || got != attempt {
			t.Fatalf("%v read back as %v, %v", attempt, got, err)
		}
		container := id.Container{Epoch: number.Draw(t, "epoch"), App: app, Seq: number.Draw(t, "container")}
		if got, err := id.ParseContainer(container.String()); err != nil || got != container {
			t.Fatalf("%v read back as %v, %v", container, got, err)
		}
	})
}

func TestReadingAContainerAllocatesNothing(t *testing.T) {
	text := id.Container{Epoch: 3, App: id.App{ClusterStart: 1700000000000, Seq: 7}, Seq: 12}.String()
	if n := testing.AllocsPerRun(100, func() { _, _ = id.ParseContainer(text) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestOtherTextIsRefused(t *testing.T) {
	for _, text := range []string{"", "web", "application_1", "application_x_1", "application_-1_1", "container_1_2_3_4", "container_e1_2_3", "container_e_1_2_3", "container_e1_2_3_4_5", "container_e+1_2_3_4", "container_e1_2_3_4_"} {
		if _, err := id.ParseApp(text); err == nil {
			t.Errorf("ParseApp accepted %q", text)
		}
		if _, err := id.ParseContainer(text); err == nil {
			t.Errorf("ParseContainer accepted %q", text)
		}
	}
}
