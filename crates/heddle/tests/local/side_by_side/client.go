// Go's client: an upload that is refused before its end, then calls on a kept connection and on one each.
// Prints what came back.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
)

const upload = 64 << 20

// What came back, in one line: status, whether the connection ends, fields, body.
func tell(call string, response *http.Response, err error) {
	if err != nil {
		fmt.Println(call, "failed:", err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	fields := []string{}
	for name, values := range response.Header {
		// How long a connection may idle is said by the hop that keeps it.
		if name != "Date" && name != "Keep-Alive" {
			fields = append(fields, name+"="+strings.Join(values, ","))
		}
	}
	sort.Strings(fields)
	fmt.Println(call, response.StatusCode, response.Close, fields, string(body), err)
}

func main() {
	small, echo := os.Args[1], os.Args[2]
	response, err := http.Post(small, "application/octet-stream", bytes.NewReader(make([]byte, upload)))
	if err != nil {
		fmt.Println("upload failed:", err)
		os.Exit(1)
	}
	response.Body.Close()
	closes := "stays"
	if response.Close {
		closes = "closes"
	}
	fmt.Println("upload", response.StatusCode, closes)
	for _, kept := range []bool{true, false} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !kept}}
		for number := 0; number < 5; number++ {
			url := fmt.Sprintf("%s%v/%d", echo, kept, number)
			response, err := client.Get(url)
			tell("get", response, err)
			// Of unknown length, so in chunks.
			body := io.MultiReader(strings.NewReader("some "), strings.NewReader("body"))
			response, err = client.Post(url, "text/plain", body)
			tell("post", response, err)
		}
	}
}
