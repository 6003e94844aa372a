package service

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/wire"
)

// readWithin is how long a reader over REST may take for one state of an app before it is let go.
const readWithin = 30 * time.Second

// AppReads serves what is read of apps over REST: the same answers as the gateway's, which would hold a decoded and an
// encoded copy of each for every reader.
func AppReads(apps Apps) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/apps", func(w http.ResponseWriter, r *http.Request) {
		views, err := apps.ListApps(r.Context(), r.URL.Query().Get("queue"))
		if err != nil {
			Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		before := `{"apps":[`
		for _, view := range views {
			if err := write(w, before, view, ""); err != nil {
				return // the reader has gone
			}
			before = ","
		}
		if len(views) > 0 {
			before = ""
		}
		_, _ = fmt.Fprint(w, before, "]}")
	})
	mux.HandleFunc("GET /v1/apps/{name}", func(w http.ResponseWriter, r *http.Request) {
		view, err := apps.App(r.Context(), r.PathValue("name"))
		if err != nil {
			Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = write(w, "", view, "")
	})
	mux.HandleFunc("GET /v1/apps/{name}/watch", func(w http.ResponseWriter, r *http.Request) {
		changes, err := apps.WatchApp(r.Context(), r.PathValue("name"))
		if err != nil {
			Refuse(w, err)
			return
		}
		defer changes.Close()
		w.Header().Set("Content-Type", "application/json")
		for {
			views, err := changes.Next(r.Context())
			if err != nil {
				// The end of a stream is told as the gateway does.
				_ = json.NewEncoder(w).Encode(map[string]any{"error": refusal(status.Convert(wire.Status(err)))})
				return
			}
			if err := write(w, "", views[len(views)-1], "\n"); err != nil {
				return
			}
		}
	})
	return mux
}

// write sends one view, with text before and after it.
func write(w http.ResponseWriter, before string, view *AppView, after string) error {
	text, err := view.JSON()
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(readWithin)) // a recorder of tests has none
	for _, part := range [][]byte{[]byte(before), text, []byte(after)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

// Refuse answers over REST as the gateway does.
func Refuse(w http.ResponseWriter, err error) {
	said := status.Convert(wire.Status(err))
	refuseWith(w, runtime.HTTPStatusFromCode(said.Code()), said)
}

func refuseWith(w http.ResponseWriter, httpStatus int, said *status.Status) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_ = json.NewEncoder(w).Encode(refusal(said))
}

func refusal(said *status.Status) map[string]any {
	return map[string]any{"code": said.Code(), "message": said.Message(), "details": []any{}}
}
