package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// askRegistry asks the zone's registry what the caller wants to know, in the instance's name: it shows what an instance
// can reach. MAMMOTH_REGISTRY has the key that registrations need.
func askRegistry(w http.ResponseWriter, r *http.Request) {
	base := os.Getenv("MAMMOTH_REGISTRY")
	if base == "" {
		http.Error(w, "MAMMOTH_REGISTRY is not set", http.StatusNotFound)
		return
	}
	method := r.FormValue("method")
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(r.Context(), method, base+r.FormValue("path"), strings.NewReader(r.FormValue("body")))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, "the registry at "+request.URL.Host+" cannot be reached", http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(response.Body, 1<<20))
	fmt.Fprintln(w)
}
