SELECT i."OrderItemID", r."ReasonID", i."OrderID", p."SellerID", o."OrderDateKey", o."StatusID"
FROM silver.order_items i
JOIN (
    SELECT "ReasonID", "OrderID", row_number() OVER (PARTITION BY "OrderID" ORDER BY _seq DESC, "ReasonID" DESC) AS n
    FROM silver."Reasons"
) r ON r."OrderID" = i."OrderID" AND r.n = 1
LEFT JOIN silver.orders o ON o."OrderID" = i."OrderID"
LEFT JOIN silver.products p ON p."ProductID" = i."ProductID"
