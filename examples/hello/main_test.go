package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

func get(t *testing.T, app http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestSaysWhoItIs(t *testing.T) {
	t.Setenv("MAMMOTH_APP", "web")
	t.Setenv("MAMMOTH_INSTANCE", "web-2")
	status, body := get(t, newApp(), "/")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{"app: web\n", "instance: web-2\n", "version: " + version + "\n", "hostname: "} {
		if !strings.Contains(body, want) {
			t.Errorf("%q lacks %q", body, want)
		}
	}
}

func TestFallsSickAndRecovers(t *testing.T) {
	app := newApp()
	for _, step := range []struct {
		path   string
		status int
	}{
		{"/healthz", 200}, {"/sick", 200}, {"/healthz", 503}, {"/well", 200}, {"/healthz", 200}, {"/nothing", 404},
	} {
		if status, _ := get(t, app, step.path); status != step.status {
			t.Errorf("%s: status %d, want %d", step.path, status, step.status)
		}
	}
}

func TestBurnsDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "burn.dat")
	if status, body := get(t, newApp(), "/burn/disk?mib=2&path="+path); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 2*mebibyte {
		t.Fatalf("file: %v, %v", info, err)
	}
	if status, _ := get(t, newApp(), "/burn/disk?mib=two"); status == http.StatusOK {
		t.Error("a count that is none was accepted")
	}
}

func TestRefusesUnknownCommands(t *testing.T) {
	for _, args := range [][]string{{"dance"}, {"burn", "money", "1"}, {"exit", "x"}, {"lines", "-1"}} {
		if err := run("0", args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestPassesOnWhatTheRegistrySays(t *testing.T) {
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, key, _ := r.BasicAuth()
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(r.Method + " " + r.URL.RequestURI() + " as " + user + ":" + key))
	}))
	// Nobody else answers there once the registry has ended.
	_ = registry.Listener.Close()
	var err error
	if registry.Listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))); err != nil {
		t.Fatal(err)
	}
	registry.Start()
	t.Setenv("MAMMOTH_REGISTRY", strings.Replace(registry.URL, "http://", "http://web:key@", 1))
	status, body := get(t, newApp(), "/registry?method=DELETE&path=/v1/registry/services/web%3Findex=1")
	if status != http.StatusTeapot || body != "DELETE /v1/registry/services/web?index=1 as web:key\n" {
		t.Errorf("answered %d %q", status, body)
	}
	registry.Close()
	if status, _ := get(t, newApp(), "/registry"); status != http.StatusBadGateway {
		t.Errorf("without a registry: status %d", status)
	}
	t.Setenv("MAMMOTH_REGISTRY", "")
	if status, _ := get(t, newApp(), "/registry"); status != http.StatusNotFound {
		t.Errorf("without MAMMOTH_REGISTRY: status %d", status)
	}
}
