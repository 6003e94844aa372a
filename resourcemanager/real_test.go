package resourcemanager

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// newReal serves on a real port, with a real file.
func newReal(t *testing.T) string {
	t.Helper()
	rm, err := New(t.Context(), Config{
		Dir: t.TempDir(), Listen: "127.0.0.1:0", Images: shelf{"web:1": {Entrypoint: []string{"/web"}}},
		Registry: board,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rm.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the ResourceManager ended with %v", err)
		}
	})
	return "http://" + rm.Address()
}

func call(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestRESTSaysWhatAPersonWouldGuess(t *testing.T) {
	base := newReal(t)
	code, body := call(t, "POST", base+"/v1/apps", `{"name": "web", "image": "web:1", "instances": 2}`)
	if code != http.StatusOK {
		t.Fatalf("deploy: %d %s", code, body)
	}
	for _, test := range []struct {
		method, path, body string
		code               int
		has                []string
	}{
		{"GET", "/v1/apps/web", "", 200, []string{`"wanted":2`, `"running":0`, `"state":"ACCEPTED"`, `"instances":[]`, `"memoryBytes":"268435456"`}},
		{"GET", "/v1/apps", "", 200, []string{`"apps":[{`}},
		{"GET", "/v1/apps/web/explain", "", 200, []string{"no node has registered"}},
		{"POST", "/v1/apps/web/scale", `{"instances": 1000000}`, 400, []string{"1000000 instances are more than the 10000"}},
		{"POST", "/v1/apps", `{"name": "my app", "image": "web:1"}`, 400, []string{"cannot be the name of an app"}},
		{"POST", "/v1/apps", `{"name": "other", "image": "web:9"}`, 404, []string{`no image is named \"web:9\"`}},
		{"POST", "/v1/apps", `{"name": "other", "queue": "gold", "image": "web:1"}`, 404, []string{"gold"}},
		{"GET", "/v1/apps/nothing", "", 404, []string{`no app is named \"nothing\"`}},
		{"GET", "/v1/nonsense", "", 404, []string{"there is no /v1/nonsense"}},
		{"PUT", "/v1/apps", "{}", 405, []string{"/v1/apps does not take PUT"}},
		{"GET", "/v1/openapi.json", "", 200, []string{`"swagger"`, "/v1/apps/{name}"}},
		{"GET", "/v1/zone", "", 200, []string{`"name":"local"`, `"epoch":"1"`}},
		{"GET", "/v1/queues", "", 200, []string{`"default"`}},
		{"GET", "/metrics", "", 200, []string{"mammoth_loop_turn_seconds", `mammoth_apps{state="ACCEPTED"} 1`}},
		{"GET", "/healthz", "", 200, []string{"ok"}},
		{"GET", "/readyz", "", 200, []string{"ok"}},
	} {
		code, body := call(t, test.method, base+test.path, test.body)
		if code != test.code {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.path, code, test.code, body)
		}
		for _, piece := range test.has {
			if !strings.Contains(strings.ReplaceAll(body, `": `, `":`), piece) {
				t.Errorf("%s %s does not say %s: %s", test.method, test.path, piece, body)
			}
		}
	}
}

func TestEventsAreOneObjectALine(t *testing.T) {
	base := newReal(t)
	request, err := http.NewRequestWithContext(t.Context(), "GET", base+"/v1/events?follow=true&app=web", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := call(t, "POST", base+"/v1/apps", `{"name": "web", "image": "web:1"}`); code != http.StatusOK {
		t.Fatalf("deploy: %d %s", code, body)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	read := func() string {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		var event struct{ Kind, To, Message string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		return event.Kind + " " + event.To
	}
	if first, second := read(), read(); first != "app ACCEPTED" || second != "attempt SCHEDULED" {
		t.Errorf("stored events: %q, %q", first, second)
	}
	if code, body := call(t, "POST", base+"/v1/apps/web/stop", "{}"); code != http.StatusOK {
		t.Fatalf("stop: %d %s", code, body)
	}
	if next := read(); next != "app STOPPING" {
		t.Errorf("the event that follows: %q", next)
	}
}

func TestASecondResourceManagerIsRefused(t *testing.T) {
	config := Config{
		Dir: t.TempDir(), Listen: "0.0.0.0:0", Images: shelf{},
		Registry: board,
	}
	if _, err := New(t.Context(), config); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("an address that others can reach: %v", err)
	}
}
