// Swagger UI for this service's OpenAPI document; it loads nothing from other origins.
window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
