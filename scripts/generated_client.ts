// What a program in TypeScript does with the generated types: compiled by scripts/generated-clients, never run.
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });

export async function convert(file: Blob): Promise<Blob | undefined> {
  const form = new FormData();
  form.set("architecture", "torchvision/resnet18");
  form.set("target", "onnx");
  form.set("file", file);
  const sent = await client.POST("/v1/conversions", {
    params: { header: { prefer: "wait=60", "idempotency-key": "one" } },
    body: { architecture: "torchvision/resnet18", target: "onnx" },
    bodySerializer: () => form,
  });
  const named = await client.POST("/v1/conversions", {
    body: {
      architecture: "torchvision/resnet18",
      target: "onnx",
      checkpoint: "0".repeat(64),
      options: { opset: 18 },
      architecture_options: { num_classes: 37 },
      accept: ["pass"],
    },
    headers: { "Content-Type": "application/json" },
  });
  const id = (sent.data ?? named.data)?.id;
  if (id === undefined) throw new Error(sent.error?.code ?? named.error?.hint ?? "no id");
  const polled = await client.GET("/v1/conversions/{conversion_id}", {
    params: { path: { conversion_id: id }, header: { prefer: "wait=60" } },
  });
  if (polled.data?.state !== "succeeded") throw new Error(polled.error?.detail);
  const file2 = await client.GET("/v1/conversions/{conversion_id}/artifact", {
    params: { path: { conversion_id: id } },
    parseAs: "blob",
  });
  return file2.data as unknown as Blob;
}
